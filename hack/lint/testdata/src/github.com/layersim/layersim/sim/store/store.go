package store

import (
	"math/rand/v2"
	"sync"
	"time"
)

const tick = 5 * time.Second // types and constants of package time are free

func clocks() {
	time.Sleep(tick)        // want `walltime: time\.Sleep`
	later := time.AfterFunc // want `walltime: time\.AfterFunc`
	_ = later
	_ = time.Unix(0, 0).Add(tick)
}

func draws(seeded *rand.Rand) int {
	_ = rand.New(rand.NewPCG(1, 2))
	return seeded.IntN(3) + rand.IntN(3) // want `random: math/rand/v2\.IntN`
}

func goroutines(a, b chan int) {
	var group sync.WaitGroup
	group.Go(func() {}) // want `goroutine: \(\*sync\.WaitGroup\)\.Go`
	go draws(nil)       // want `goroutine: the go statement`
	select {            // want `goroutine: select`
	case <-a:
	case <-b:
	}
}

func exceptions() {
	_ = time.Now() //layersim:allow walltime measures the run itself
	//layersim:allow walltime measures the run itself
	_ = time.Now()
	// want +1 `allow: nothing on this line or the next breaks the rule walltime`
	//layersim:allow walltime because
	_ = tick
	// want +1 `allow: say the rule and the reason`
	//layersim:allow walltime
	_ = time.Now() // want `walltime: time\.Now`
	// want +1 `allow: nothing on this line or the next breaks the rule random`
	//layersim:allow random the wrong rule
	_ = time.Now() // want `walltime: time\.Now`
}
