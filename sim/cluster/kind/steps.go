package kind

import (
	"fmt"
	"strings"
	"sync"
	"time"

	"sigs.k8s.io/kind/pkg/log"
)

// steps tells the progress, each step with its time.
type steps struct {
	mu   sync.Mutex
	tell func(string)
	last time.Time
}

func newSteps(tell func(string)) *steps { return &steps{tell: tell, last: time.Now()} }

// done tells a step that began when the one before it ended.
func (s *steps) done(step string) {
	s.mu.Lock()
	took := time.Since(s.last)
	s.last = time.Now()
	s.mu.Unlock()
	s.took(step, took)
}

// took tells a step that ran beside others.
func (s *steps) took(step string, d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.tell != nil {
		s.tell(fmt.Sprintf("%s (%.1f s)", step, d.Seconds()))
	}
}

// logger makes steps of what kind logs. kind marks the end of a step with a tick; all else is for terminals.
type logger struct{ steps *steps }

func (l logger) Warn(string)           {}
func (l logger) Warnf(string, ...any)  {}
func (l logger) Error(string)          {} // returned as well
func (l logger) Errorf(string, ...any) {}

func (l logger) V(level log.Level) log.InfoLogger {
	if level > 0 || l.steps == nil {
		return log.NoopInfoLogger{}
	}
	return l
}

func (l logger) Enabled() bool                    { return true }
func (l logger) Infof(format string, args ...any) { l.Info(fmt.Sprintf(format, args...)) }

func (l logger) Info(message string) {
	step, ok := strings.CutPrefix(strings.TrimSpace(message), "✓ ")
	if !ok {
		return
	}
	// kind decorates its steps.
	step = strings.TrimSpace(strings.Map(func(r rune) rune {
		if r > 0x7f {
			return -1
		}
		return r
	}, step))
	if step != "" {
		l.steps.done(strings.ToLower(step[:1]) + step[1:])
	}
}
