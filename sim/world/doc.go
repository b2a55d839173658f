// Package world is the simulator's engine: a virtual clock, a single-threaded event loop and a seeded schedule.
//
// # The loop
//
// Nothing in a simulated cluster runs by itself. The world keeps a set of things that could happen next, and [World.Step]
// picks one of them with the run's seed and lets it happen:
//
//   - deliver the next watch event of one kind to one component (its cache moves one revision on, its work queue grows);
//   - run one queued reconcile of one component, to its end;
//   - fire a timer that is due;
//   - let an actor act: the scenario's next step is one.
//
// When nothing could happen at this instant, time jumps to the earliest timer. So the same binary, scenario and seed
// give the same history, byte for byte, and an hour of back-off costs nothing.
//
// # Components
//
// Components are [component.Component] declarations, grouped into processes as they ship. A process has one or more
// replicas; with more than one they elect a leader by a Lease, and only the leader's components run. Each component
// reads from its own view of the store: each kind stands at a revision that moves only when the schedule delivers,
// and now and then a delivery is held back for some time ([Lag]). Writes go to the head and meet real conflicts. Work
// queues behave like client-go's: one key at a time, de-duplicated, 5 ms doubling to 1000 s after an error,
// RequeueAfter as asked.
//
// A process can be stopped, started, restarted, and crashed before or after a certain write ([World.CrashAt]). A crash
// takes everything that the components had in memory: queue, back-off, view. A new start lists everything anew.
//
// # Ends
//
// A hot loop, that is a key reconciled [HotLoop] times without time moving on, ends the run with a [HotLoopError] that
// names component and key. A panic in a component is recorded and, as on a real cluster, restarts the process. When
// nothing is left that could happen, Step reports [DeadEnd].
//
// # What it does not do
//
// Leases are written when the leader changes, not renewed every few seconds, since renewals would only hide that a
// cluster is at rest. Two components never run at the same time: what a schedule interleaves are reconciles and
// deliveries, not the instructions inside a reconcile. A read inside a reconcile sees the view as it stood at the
// reconcile's begin, for nothing is delivered while it runs.
package world
