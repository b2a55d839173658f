package report

import (
	"cmp"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// TextOptions of [Text].
type TextOptions struct {
	// Color uses ANSI escapes. Without it, verdicts and marks are told by words and signs alone, as they are with it.
	Color bool
	// Verbose shows the whole timeline of each scenario, of passed ones too.
	Verbose bool
}

// before is how many entries of the timeline a failure is shown with.
const before = 25

// windows is for how many failures of a scenario the timeline is shown.
const windows = 3

// widest is the width to which texts of timelines are cut outside of verbose output.
const widest = 200

// Line is a scenario's verdict in one line of plain text.
func Line(r *Result) string {
	line := fmt.Sprintf("%-7s %-46s %10s", r.Verdict, r.Name, human(r.VirtualSeconds))
	line += fmt.Sprintf("  %9s  %6d revisions", fmt.Sprintf("%.0f ms", r.WallSeconds*1000), r.Revisions)
	if r.Verdict == Skipped || r.Verdict == Known || r.Verdict == Errored {
		line = fmt.Sprintf("%-7s %-46s %s", r.Verdict, r.Name, oneLine(reason(r)))
	}
	return line
}

// Text writes the suite for people.
func Text(w io.Writer, s *Suite, o TextOptions) error {
	p := &printer{w: w, color: o.Color}
	for _, r := range s.Scenarios {
		p.line(verdictTone(r.Verdict), "%s", Line(r))
	}
	for _, r := range s.Scenarios {
		failed := r.Verdict == Failed || r.Verdict == Errored
		if !failed && (!o.Verbose || r.Verdict == Skipped) {
			continue
		}
		p.line("", "")
		p.line("bold", "--- %s: %s", r.Verdict, r.Name)
		if r.Scenario != nil && r.Scenario.Shows != "" {
			p.line("dim", "    %s", oneLine(r.Scenario.Shows))
		}
		if r.File != "" {
			p.line("dim", "    %s, seed %d", r.File, seed(s, r))
		}
		if r.Err != nil {
			p.line("bad", "    %s", r.Err)
		}
		p.failures(r)
		if r.Comparison != "" {
			p.line("", "")
			for text := range strings.Lines(r.Comparison) {
				p.line("", "    %s", strings.TrimSuffix(text, "\n"))
			}
		}
		if o.Verbose {
			p.whole(r)
		} else {
			p.around(r)
		}
	}
	if p.err == nil && len(s.Scenarios) > 0 {
		p.line("", "")
	}
	for _, t := range timings(s) {
		p.line("dim", "%s", t)
	}
	p.line("bold", "%s", Summary(s))
	if p.err != nil {
		return fmt.Errorf("write report: %w", p.err)
	}
	return nil
}

// Summary counts the verdicts: "6 passed, 1 failed, 0 skipped", and the numbers of known defects and of errors if there are any.
func Summary(s *Suite) string {
	c := count(s)
	text := fmt.Sprintf("%d passed, %d failed, %d skipped", c[Passed], c[Failed], c[Skipped])
	if c[Known] > 0 {
		text += fmt.Sprintf(", %d failed by known defects", c[Known])
	}
	if c[Errored] > 0 {
		text += fmt.Sprintf(", %d could not run", c[Errored])
	}
	return text
}

func count(s *Suite) map[string]int {
	c := map[string]int{}
	for _, r := range s.Scenarios {
		c[r.Verdict]++
	}
	return c
}

// timings are what times mean in a suite, where they are not virtual.
func timings(s *Suite) []string {
	var said []string
	for _, r := range s.Scenarios {
		if r.Timing != "" && !slices.Contains(said, r.Timing) {
			said = append(said, r.Timing)
		}
	}
	return said
}

// seed is that which the scenario ran with.
func seed(s *Suite, r *Result) uint64 {
	switch {
	case r.Scenario != nil && r.Scenario.Seed != 0:
		return r.Scenario.Seed
	case r.History != nil:
		return r.History.Header.Seed
	}
	return s.Seed
}

func verdictTone(verdict string) string {
	switch verdict {
	case Passed:
		return "good"
	case Failed, Errored:
		return "bad"
	}
	return "warn"
}

// printer writes lines and remembers the first error.
type printer struct {
	w     io.Writer
	color bool
	err   error
}

var escapes = map[string]string{"good": "\x1b[32m", "warn": "\x1b[33m", "bad": "\x1b[31m", "dim": "\x1b[2m", "bold": "\x1b[1m"}

func (p *printer) line(tone, format string, args ...any) {
	if p.err != nil {
		return
	}
	text := strings.TrimRight(printable(fmt.Sprintf(format, args...)), " ")
	if start := escapes[tone]; p.color && start != "" && text != "" {
		text = start + text + "\x1b[0m"
	}
	_, p.err = io.WriteString(p.w, text+"\n")
}

// printable replaces control characters, which a log or a message may hold, so that they don't reach a terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' && r != '\n' && r != '\t' || r == 0x7f || r == utf8.RuneError || 0x80 <= r && r < 0xa0 {
			return '·'
		}
		return r
	}, s)
}

// failures lists what was wrong.
func (p *printer) failures(r *Result) {
	for _, f := range r.Failures {
		p.line("bad", "    ✗ %s", short(oneLine(f.Check)))
		p.line("", "      %s", short(oneLine(f.Message)))
		p.line("dim", "      at %s, revision %d", stamp(seconds(f.VirtualSeconds)), f.Revision)
	}
}

// row is a line of a timeline: an entry or a failure.
type row struct {
	Entry
	failure *Failure
	// cause marks the entry of the record at which a failure was found.
	cause bool
}

// rows weaves the failures into the timeline. Where the record that a failure names is no entry, the failure alone marks
// the place.
func rows(entries []Entry, failures []Failure) []row {
	sorted := slices.Clone(failures)
	slices.SortStableFunc(sorted, func(a, b Failure) int { return cmp.Compare(a.Seq, b.Seq) })
	var out []row
	next := 0
	weave := func(until int64) {
		for next < len(sorted) && sorted[next].Seq < until {
			f := &sorted[next]
			out = append(out, row{failure: f, Entry: Entry{Seq: f.Seq, Time: seconds(f.VirtualSeconds), Revision: f.Revision, Count: 1,
				Tone: Bad, Subject: f.Check, Text: oneLine(f.Message)}})
			next++
		}
	}
	for _, e := range entries {
		weave(e.Seq)
		cause := next < len(sorted) && sorted[next].Seq == e.Seq
		out = append(out, row{Entry: e, cause: cause})
	}
	weave(math.MaxInt64)
	return out
}

// around prints the timeline before each of the first failures.
func (p *printer) around(r *Result) {
	if r.History == nil || len(r.Failures) == 0 {
		return
	}
	all := rows(Timeline(r.History), r.Failures)
	all = slices.DeleteFunc(all, func(r row) bool { return r.Detail && !r.cause })
	show := make([]bool, len(all))
	shown := 0
	for n := range all {
		if all[n].failure == nil {
			continue
		}
		if shown++; shown > windows {
			break
		}
		for i := max(0, n-before); i <= n; i++ {
			show[i] = true
		}
		// The begin of the step in which it happened tells what was asked for.
		for i := n; i >= 0; i-- {
			if all[i].Kind == KindStep && strings.HasPrefix(all[i].Text, "begins: ") {
				show[i] = true
				break
			}
		}
	}
	p.timeline(all, show)
	if n := len(r.Failures) - windows; n > 0 {
		p.line("dim", "      the timeline of %d more failures is not shown", n)
	}
}

// whole prints the whole timeline.
func (p *printer) whole(r *Result) {
	if r.History == nil {
		return
	}
	all := rows(Timeline(r.History), r.Failures)
	all = slices.DeleteFunc(all, func(r row) bool { return r.Detail && !r.cause })
	p.timeline(all, slices.Repeat([]bool{true}, len(all)))
}

// timeline prints rows in columns: mark, virtual time since the first step, revision, actor, text.
func (p *printer) timeline(all []row, show []bool) {
	if len(all) == 0 {
		return
	}
	actor, clock := len("ACTOR"), len("TIME")
	for n, r := range all {
		if show[n] {
			actor = max(actor, len(r.Actor))
			clock = max(clock, len(stamp(r.Time)))
		}
	}
	actor = min(actor, 26)
	p.line("", "")
	p.line("dim", "      %*s  %8s  %-*s  %s", clock, "TIME", "REVISION", actor, "ACTOR", "WHAT")
	left := 0
	gap := func() {
		if left > 0 {
			p.line("dim", "      %*s", clock, fmt.Sprintf("… %d more", left))
		}
		left = 0
	}
	for n, r := range all {
		if !show[n] {
			left++
			continue
		}
		gap()
		mark, tone := " ", string(r.Tone)
		what := r.Subject + " " + r.Text
		switch {
		case r.failure != nil:
			mark, what = "✗", r.Subject+": "+r.Text
		case r.cause:
			mark, tone = ">", "bad"
		case r.Kind == KindStep:
			tone = or(tone, "bold", tone)
		}
		if r.Count > 1 {
			what += fmt.Sprintf(" [%d times until %s]", r.Count, stamp(r.Until))
		}
		p.line(tone, "    %s %*s  %8d  %-*s  %s", mark, clock, stamp(r.Time), r.Revision, actor, cut(r.Actor, actor), cut(short(what), widest))
	}
	gap()
}

// cut cuts a text to n runes.
func cut(s string, n int) string {
	if utf8.RuneCountInString(s) <= n {
		return s
	}
	return string([]rune(s)[:n-1]) + "…"
}

// short cuts each run of 20 or more hexadecimal digits, such as a digest, to eight, and takes registry and path from image
// references with a digest.
func short(s string) string {
	const digest = "@sha256:"
	if strings.Contains(s, digest) {
		parts := strings.Split(s, digest)
		for n, part := range parts[:len(parts)-1] {
			start := strings.LastIndexAny(part, " \"'(,=") + 1
			if slash := strings.LastIndexByte(part, '/'); slash > start {
				parts[n] = part[:start] + part[slash+1:]
			}
		}
		s = strings.Join(parts, digest)
	}
	const least, keep = 20, 8
	var out strings.Builder
	from := 0
	for n := 0; n <= len(s); n++ {
		if n < len(s) && strings.IndexByte("0123456789abcdef", s[n]) >= 0 {
			continue
		}
		if n-from >= least {
			out.WriteString(s[from : from+keep])
		} else {
			out.WriteString(s[from:n])
		}
		if n < len(s) {
			out.WriteByte(s[n])
		}
		from = n + 1
	}
	return out.String()
}

func seconds(s float64) time.Duration {
	return time.Duration(s * float64(time.Second)).Round(time.Microsecond)
}

// human is a time to read: 1h12m03s, 3m07s, 12.3s.
func human(s float64) string { return duration(seconds(s)) }

func duration(d time.Duration) string {
	if d < 0 {
		return "-" + duration(-d)
	}
	if d < time.Minute {
		s := fmt.Sprintf("%.1f", d.Seconds())
		return strings.TrimSuffix(s, ".0") + "s"
	}
	d = d.Round(time.Second)
	h, m, s := d/time.Hour, d%time.Hour/time.Minute, d%time.Minute/time.Second
	if h > 0 {
		return fmt.Sprintf("%dh%02dm%02ds", h, m, s)
	}
	return fmt.Sprintf("%dm%02ds", m, s)
}

// rough is a time without zeros at its end: 15m, 2h.
func rough(d time.Duration) string {
	s := duration(d)
	if d >= time.Minute {
		s = strings.TrimSuffix(s, "00s")
	}
	if d >= time.Hour {
		s = strings.TrimSuffix(s, "00m")
	}
	return s
}

// stamp is a point in time, with tenths of a second: 1h12m03.4s.
func stamp(d time.Duration) string {
	if d < 0 {
		return "-" + stamp(-d)
	}
	d = d.Truncate(100 * time.Millisecond)
	h, m, s := d/time.Hour, d%time.Hour/time.Minute, (d % time.Minute).Seconds()
	switch {
	case h > 0:
		return fmt.Sprintf("%dh%02dm%04.1fs", h, m, s)
	case m > 0:
		return fmt.Sprintf("%dm%04.1fs", m, s)
	}
	return fmt.Sprintf("%.1fs", s)
}
