// Package report presents the outcome of a run: to people as text and as a page, to machines as JSON and JUnit.
//
// A [Suite] holds a [Result] for each scenario. All forms are made from it and from the histories that its results carry,
// by pure functions: the same suite gives the same bytes. The wall time of a run is the only thing in them that differs
// between two runs with one seed.
//
// # Forms
//
//   - [Line] is one line a scenario: verdict, name, virtual time, wall time, revisions.
//   - [Text] is those lines, then for each failed scenario what was wrong and a timeline around the point of failure, then
//     a summary. With Verbose it shows the whole timeline of each scenario.
//   - [JSON] is for scripts; its form is stable.
//   - [JUnit] is for CI: a test case a scenario, its class is the scenario's area.
//   - [HTML] is one self-contained file, without scripts it is complete, with them it can be filtered.
//
// # Timelines
//
// [Timeline] tells a history as a person would who has watched the run: steps, milestones of MachineOSConfigs, builds, Jobs
// and pods, pushes and refused requests at the registry, conditions and counts of pools, targets, drains, cordons and
// states of nodes, boots with their image, faults, and what befell components. It is derived from the history alone.
// Repetitions are collapsed into one entry with a count, and what matters only on a close look is marked as detail.
// Virtual time counts from the first step's begin.
//
// Long hexadecimal names (hashes, digests) are cut to eight digits for reading; the HTML shows them whole as tooltips.
//
// # What it does not do
//
// It doesn't judge (package check does), doesn't print the objects themselves (the history file has them), and knows no
// secret: histories are redacted before they get here, and whatever they hold is escaped.
package report
