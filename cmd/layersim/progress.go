package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"

	"golang.org/x/term"

	"github.com/layersim/layersim/sim/check"
	"github.com/layersim/layersim/sim/history"
)

// progress tells on standard error how far a run is. On a terminal it is a few lines that change: how many scenarios have
// ended, and the step of each one that runs. In a log it is a line for each scenario that has ended, and one for each step of
// those that last.
//
// What is written to it goes above the lines that change.
type progress struct {
	out io.Writer
	// width is that of the terminal in columns; nil in a log.
	width func() int
	now   func() time.Time

	mu      sync.Mutex // guards what follows
	total   int
	ended   int
	note    string
	running []*shown
	lines   int // how many of them are on the terminal
	ticking chan struct{}
}

// shown is a scenario that runs.
type shown struct {
	name        string
	begun       time.Time
	step, steps int
	what        string
	told        string
}

const (
	// patience is how long nothing need be told.
	patience = 2 * time.Second
	tick     = time.Second
)

func newProgress(out io.Writer) *progress {
	p := &progress{out: out, now: time.Now}
	if isTerminal(out) {
		p.width = func() int {
			width, _, err := term.GetSize(int(out.(*os.File).Fd()))
			if err != nil || width < 20 {
				return 80
			}
			return width
		}
	}
	return p
}

// isTerminal says whether what is written is seen by a person, on something that can move its cursor, and whether what is
// read is typed.
func isTerminal(stream any) bool {
	file, ok := stream.(*os.File)
	return ok && os.Getenv("TERM") != "dumb" && term.IsTerminal(int(file.Fd()))
}

// start says how many scenarios there will be.
func (p *progress) start(total int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.total, p.ticking = total, make(chan struct{})
	go func(stop chan struct{}) {
		t := time.NewTicker(tick)
		defer t.Stop()
		for {
			select {
			case <-t.C:
				p.mu.Lock()
				p.show()
				p.mu.Unlock()
			case <-stop:
				return
			}
		}
	}(p.ticking)
}

// begin shows a scenario until its end.
func (p *progress) begin(name string, steps int) *shown {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := &shown{name: name, begun: p.now(), steps: steps, what: "making its cluster"}
	p.running = append(p.running, s)
	p.show()
	return s
}

// observe shows the step that a record begins.
func (p *progress) observe(s *shown, r *history.Record) {
	if r.Step == nil || r.Step.Event != check.Begin {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	s.step, s.what = r.Step.Index+1, r.Step.Name
	p.show()
}

// end tells a scenario's end: in a log each, on a terminal one that went wrong. What went wrong first need not be told of one
// that was quick, for the report follows soon.
func (p *progress) end(s *shown, verdict, wrong string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ended++
	p.running = slices.DeleteFunc(p.running, func(other *shown) bool { return other == s })
	since := p.since(s)
	line := fmt.Sprintf("[%d/%d] %s: %s%s\n", p.ended, p.total, s.name, verdict, since)
	if wrong = strings.Join(strings.Fields(wrong), " "); wrong != "" && since != "" {
		line += "  ✗ " + cut(wrong, 240) + "\n"
	}
	switch {
	case p.width == nil:
		_, _ = io.WriteString(p.out, line) // who can't be told need not be told that
	case wrong != "" && since != "":
		p.draw([]byte(line))
	}
	p.show()
}

// since is how long a scenario has run, in parentheses.
func (p *progress) since(s *shown) string {
	if took := p.now().Sub(s.begun); took >= patience {
		return fmt.Sprintf(" (%s)", took.Round(time.Second))
	}
	return ""
}

func (s *shown) String() string {
	text := s.name + ": "
	if s.step > 0 {
		text += fmt.Sprintf("step %d/%d, ", s.step, s.steps)
	}
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, text+s.what)
}

// show brings what is seen up to date. The caller holds the lock.
func (p *progress) show() {
	if p.width != nil {
		p.draw(nil)
		return
	}
	for _, s := range p.running {
		if text := s.String(); text != s.told && p.now().Sub(s.begun) >= patience {
			fmt.Fprintf(p.out, "[%d/%d] %s\n", p.ended, p.total, text)
			s.told = text
		}
	}
}

// draw replaces the lines on the terminal by a text and the lines as they are now. All is written at once, so that nothing
// flickers.
func (p *progress) draw(text []byte) {
	var b bytes.Buffer
	if p.lines > 0 {
		b.WriteByte('\r')
		if p.lines > 1 {
			fmt.Fprintf(&b, "\x1b[%dA", p.lines-1)
		}
		b.WriteString("\x1b[J")
	}
	b.Write(text)
	var lines []string
	if p.total > 0 {
		head := fmt.Sprintf("[%d/%d]", p.ended, p.total)
		switch {
		case p.note != "":
			lines = append(lines, head+" "+p.note)
		case len(p.running) == 1:
			lines = append(lines, head+" "+p.running[0].String()+p.since(p.running[0]))
		default:
			lines = append(lines, head)
			for _, s := range p.running {
				lines = append(lines, "  "+s.String()+p.since(s))
			}
		}
	}
	for n, line := range lines {
		if n > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(cut(line, p.width()-1))
	}
	p.lines = len(lines)
	_, _ = p.out.Write(b.Bytes()) // who can't be told need not be told that
}

// cut shortens a line in its middle, where what it is and how long it has taken aren't.
func cut(line string, width int) string {
	runes := []rune(line)
	if len(runes) <= width {
		return line
	}
	tail := min(12, width/3)
	return string(runes[:width-tail-1]) + "…" + string(runes[len(runes)-tail:])
}

// Write implements io.Writer for whole lines.
func (p *progress) Write(text []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.width == nil {
		return p.out.Write(text)
	}
	p.draw(text)
	return len(text), nil
}

// say shows what goes on beside, or after, all scenarios.
func (p *progress) say(note string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.note = note
	p.show()
}

// done takes the lines away.
func (p *progress) done() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ticking != nil {
		close(p.ticking)
		p.ticking = nil
	}
	p.total, p.running = 0, nil
	p.show()
}
