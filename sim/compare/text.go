package compare

import (
	"bufio"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"
)

const (
	column  = 74 // width of one side
	nearby  = 3  // how many milestones of a track are shown before and after the one in question
	timeFmt = "%9s  "
)

// Text prints differences for people: each in one line, below it both runs side by side, with the milestones of the same
// track around it or with cause and effect. Times count from the first step's begin.
func Text(w io.Writer, differences []Difference) error {
	out := bufio.NewWriter(w)
	for n, d := range differences {
		if n > 0 {
			fmt.Fprintln(out)
		}
		fmt.Fprintln(out, d)
		left, right := d.side(&d.A, &d.B), d.side(&d.B, &d.A)
		line(out, d.A.Run, d.B.Run)
		for i := range max(len(left), len(right)) {
			line(out, at(left, i), at(right, i))
		}
	}
	if err := out.Flush(); err != nil {
		return fmt.Errorf("print differences: %w", err)
	}
	return nil
}

func line(w io.Writer, left, right string) {
	left, right = cut(left), cut(right)
	fmt.Fprintf(w, "    %s%s | %s\n", left, strings.Repeat(" ", column-utf8.RuneCountInString(left)), right)
}

func cut(s string) string {
	if r := []rune(s); len(r) > column {
		return string(r[:column-1]) + "…"
	}
	return s
}

func at(list []string, n int) string {
	if n < len(list) {
		return list[n]
	}
	return ""
}

// side tells one side in lines.
func (d *Difference) side(s, other *Side) []string {
	if d.Kind == Order {
		return d.causes(s)
	}
	if len(s.Track) == 0 {
		return []string{"  (nothing: " + d.Milestone.Subject + ", " + d.Milestone.Track + ")"}
	}
	middle := s.At
	if middle < 0 {
		middle = min(other.At, len(s.Track)) // where it would be, as far as one can tell
	}
	var lines []string
	from, to := max(0, middle-nearby), min(len(s.Track), middle+nearby+1)
	if from > 0 {
		lines = append(lines, "  …")
	}
	for n := from; n < to; n++ {
		lines = append(lines, mark(n == s.At)+tell(&s.Track[n], s.Track[n].Text))
	}
	if to < len(s.Track) {
		lines = append(lines, "  …")
	}
	return lines
}

func (d *Difference) causes(s *Side) []string {
	var lines []string
	if s.Last != nil {
		lines = append(lines, "  "+tell(s.Last, s.Last.Subject+", "+s.Last.Text))
	} else {
		lines = append(lines, "  (no cause before it)")
	}
	if s.At >= 0 {
		m := &s.Track[s.At]
		lines = append(lines, "> "+tell(m, m.Subject+", "+m.Text))
	}
	if s.Next != nil {
		lines = append(lines, "  "+tell(s.Next, s.Next.Subject+", "+s.Next.Text))
	}
	return lines
}

func mark(here bool) string {
	if here {
		return "> "
	}
	return "  "
}

// tell tells a milestone with its time, its record and the object's own name.
func tell(m *Milestone, text string) string {
	if m.Object != "" && !strings.HasSuffix(m.Subject, " "+m.Object) {
		name := m.Object
		if base, hash := cutHash(name); hash {
			name = base + "-" + name[len(base)+1:len(base)+9]
		}
		text += " [" + name + "]"
	}
	return fmt.Sprintf(timeFmt+"#%-6d %s", duration(m.Time), m.Seq, text)
}

func duration(d time.Duration) string {
	s := d.Seconds()
	if s < 60 {
		return fmt.Sprintf("%.1fs", s)
	}
	return fmt.Sprintf("%dm%04.1fs", int(s)/60, s-float64(int(s)/60*60))
}
