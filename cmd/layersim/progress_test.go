package main

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/layersim/layersim/sim/check"
	"github.com/layersim/layersim/sim/history"
)

// told is a progress with a clock that only the test moves.
type told struct {
	*progress
	bytes.Buffer
	time time.Time
}

func newTold(width int) *told {
	w := &told{time: time.Unix(0, 0)}
	w.progress = &progress{out: &w.Buffer, now: func() time.Time { return w.time }, total: 3}
	if width > 0 {
		w.width = func() int { return width }
	}
	return w
}

func (w *told) pass(d time.Duration) {
	w.time = w.time.Add(d)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.show()
}

func (w *told) step(s *shown, index int, name string) {
	w.observe(s, &history.Record{Step: &history.Step{Index: index, Name: name, Event: check.Begin}})
	w.observe(s, &history.Record{Step: &history.Step{Index: index, Name: name, Event: check.Did, Message: "something"}})
	w.observe(s, &history.Record{})
}

// In a log nothing is told twice, and only the end of what is quick.
func TestProgressInLog(t *testing.T) {
	w := newTold(0)
	quick, slow := w.begin("quick", 2), w.begin("slow", 2)
	w.step(quick, 0, "one")
	w.pass(time.Second)
	w.end(quick, "failed", "at once, and the report follows")
	w.pass(2 * time.Second)
	w.pass(time.Second)
	w.step(slow, 0, "build\x1b[2J")
	w.pass(time.Second)
	fmt.Fprintln(w.progress, "envtest: something else")
	w.step(slow, 1, "roll out")
	w.pass(time.Minute)
	w.end(slow, "failed", "step 2, roll out:\n  not met")
	w.say("ending the clusters")
	w.done()
	want := `[1/3] quick: failed
[1/3] slow: making its cluster
[1/3] slow: step 1/2, build [2J
envtest: something else
[1/3] slow: step 2/2, roll out
[2/3] slow: failed (1m5s)
  ✗ step 2, roll out: not met
`
	if diff := cmp.Diff(want, w.String()); diff != "" {
		t.Error(diff)
	}
}

// On a terminal the lines that change are at the bottom, never wider than it, and gone in the end.
func TestProgressOnTerminal(t *testing.T) {
	w := newTold(40)
	one := w.begin("one", 2)
	w.step(one, 0, "build")
	w.pass(75 * time.Second)
	w.screen(t, "[0/3] one: step 1/2, build (1m15s)")
	two := w.begin("two", 1)
	w.screen(t, "[0/3]", "  one: step 1/2, build (1m15s)", "  two: making its cluster")
	fmt.Fprintln(w.progress, "kind: loading an image")
	w.screen(t, "kind: loading an image", "[0/3]", "  one: step 1/2, build (1m15s)", "  two: making its cluster")
	w.end(one, "passed", "")
	w.step(two, 0, "a step that has a very long name, longer than most")
	w.pass(5 * time.Second)
	w.screen(t, "kind: loading an image", "[1/3] two: step 1/1, a ste…an most (5s)")
	w.end(two, "failed", "step 1: not met")
	w.say("ending the clusters")
	above := []string{"kind: loading an image", "[2/3] two: failed (5s)", "  ✗ step 1: not met"}
	w.screen(t, append(slices.Clone(above), "[2/3] ending the clusters")...)
	w.done()
	w.screen(t, append(above, "")...)
}

// screen compares what a terminal shows that got everything so far.
func (w *told) screen(t *testing.T, want ...string) {
	t.Helper()
	lines, row := []string{""}, 0
	for text := w.String(); text != ""; {
		switch {
		case strings.HasPrefix(text, "\x1b[J"):
			lines, text = append(lines[:row:row], ""), text[3:]
		case strings.HasPrefix(text, "\x1b["):
			var up int
			if _, err := fmt.Sscanf(text, "\x1b[%dA", &up); err != nil {
				t.Fatalf("%q: %v", text, err)
			}
			row -= up
			text = text[strings.IndexByte(text, 'A')+1:]
		case text[0] == '\r':
			text = text[1:] // what is written afterwards is cleared first
		case text[0] == '\n':
			if row++; row == len(lines) {
				lines = append(lines, "")
			}
			text = text[1:]
		default:
			n := strings.IndexAny(text, "\r\n\x1b")
			if n < 0 {
				n = len(text)
			}
			lines[row] += text[:n]
			text = text[n:]
		}
	}
	if diff := cmp.Diff(want, lines); diff != "" {
		t.Error(diff)
	}
}
