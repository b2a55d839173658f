// Package check judges histories.
//
// A [Judge] is fed a history's records in order, while they happen or years later, and says which of a scenario's
// expectations were missed and which invariants were broken. It looks at nothing else: the same records give the same
// verdict. Every [Failure] names the revision and the virtual time where things went wrong.
//
// # Expectations of a step
//
//   - expect: all must hold together at one instant after the step's actions. Each revision is looked at, so that a state
//     that lasts for a millisecond is not missed.
//   - in order: one after the other, each at an instant not before that of the one before.
//   - settles: all must hold together when the cluster has come to rest.
//   - ever: counted over the whole run up to the step's end; objects are told apart by their UIDs.
//   - never, always: looked at on each revision from the step's begin to its end (a scenario's own: to the end of the run).
//
// The runner marks the phases of a step by records of kind step (begin, acted, rest, deadline, end), so they are part of
// what is judged.
//
// # Invariants
//
// [Invariants] are rules that hold in each run, whatever the scenario: see the list there. They are computed from the
// objects alone and share no code with the controllers. Most are looked at on each record; some need time to come true, and
// are looked at whenever the cluster has come to rest with all programs running, which is what settles waits for. Of the
// list's rules, I10 (nothing moves by itself) is what rest means, I12 (a change makes as many builds as it needs) is for
// scenarios to count, and I13 (all comes to an end) is what within asks of each step.
package check
