package world

import "time"

// Clock is the virtual clock. It implements clock.PassiveClock and moves only when the world moves it.
type Clock struct {
	start time.Time
	now   time.Duration
}

// NewClock returns a clock that stands at start.
func NewClock(start time.Time) *Clock { return &Clock{start: start} }

// Now returns the virtual time.
func (c *Clock) Now() time.Time { return c.start.Add(c.now) }

// Since returns the virtual time that has passed since t.
func (c *Clock) Since(t time.Time) time.Duration { return c.Now().Sub(t) }

// Elapsed returns the virtual time since the clock's start.
func (c *Clock) Elapsed() time.Duration { return c.now }

// Timer is something that will happen at a time.
type Timer struct {
	due time.Duration
	// seq breaks ties, so that timers of one instant keep the order in which they were set.
	seq   int64
	index int // in the heap; -1: not there
	// driver timers belong to the scenario: they don't keep a world alive that has come to its end.
	driver bool
	item   item
	fire   func()
}

// timers is a heap by due time, then by order of creation; see container/heap.
type timers []*Timer

func (t timers) Len() int { return len(t) }
func (t timers) Less(i, j int) bool {
	if t[i].due != t[j].due {
		return t[i].due < t[j].due
	}
	return t[i].seq < t[j].seq
}
func (t timers) Swap(i, j int) {
	t[i], t[j] = t[j], t[i]
	t[i].index, t[j].index = i, j
}
func (t *timers) Push(x any) {
	timer := x.(*Timer)
	timer.index = len(*t)
	*t = append(*t, timer)
}
func (t *timers) Pop() any {
	old := *t
	timer := old[len(old)-1]
	old[len(old)-1] = nil
	*t = old[:len(old)-1]
	timer.index = -1
	return timer
}
