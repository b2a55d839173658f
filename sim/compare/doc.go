// Package compare says where two runs of one scenario differ: on two clusters, or on one with two seeds.
//
// [Milestones] reduces a history to what the layering lifecycle leaves behind, from the first step's begin on, with every
// accidental name replaced. [Histories] compares two histories by their milestones, [Text] prints the differences side by
// side, and [Explanations] takes away those that people have looked into. All of it is a pure function of its arguments.
//
// # Names
//
// Hashes, generated names, digests and ids differ between any two runs, so they are replaced by what they stand for:
//
//   - layered-H2 is the second MachineOSBuild made for the MachineOSConfig layered; its Job, pods, ConfigMaps and Secrets
//     are named after it ("job of layered-H2", "pod 1 of layered-H2").
//   - "image of layered-H2" is the image that it pushed, whatever its digest. Content that was pushed twice is called
//     after the first build.
//   - rendered-layered-H2 is the second rendered MachineConfig that pool layered or its nodes spoke of.
//   - worker-N2 is a node with the roles that only workers have. Nodes with the same roles at the begin (or at their
//     creation) stand in for each other: candidates are ordered by zone and age, ages have seconds, and which of two equal
//     nodes comes first is an accident. They are numbered in the order in which they were first told to change. In a comparison
//     a node is then paired with one that went through the same, where there is one.
//   - machine-M1 is the first Machine that a MachineSet made.
//
// # What is compared
//
// Each milestone belongs to a track: one aspect of one object or machine, which one actor writes and whose values follow
// each other. The order within a track is compared as it is. There are two kinds of tracks.
//
// Exact tracks hold what can't be skipped, however slow an observer is, since something else waits for each step. They must be
// the same, milestone by milestone:
//
//	scenario          steps begun, ended, missed
//	machineosconfig   created, spec changed, rebuild asked for, deleted; its current build; its image for nodes
//	machineosbuild    created, deleted; the image that it reports
//	job               created; until its deletion is asked for: failed and succeeded pods as they are counted, Complete or
//	                  Failed; deletion asked for, gone
//	build pod         created, Succeeded or Failed, gone; Running only if it lasted, as in level tracks
//	build object      each ConfigMap and Secret of a build: created, gone; the image in the digest's ConfigMap
//	registry          images pushed and deleted, and whether a node still ran or wanted a deleted one
//	pool              created, deleted, paused, unpaused; how many nodes were under way at once at most
//	node              created, deleted, roles; targets (configuration and image together); the drain handshake (asks for drain,
//	                  drained, asks for uncordon, uncordoned); cordon and uncordon; state (Working, Done, Degraded,
//	                  Unreconcilable); current configuration and image; boots since the begin, with what; drift
//	machine           created, deleted
//	component         panics
//
// Level tracks hold what controllers compute anew from what they see: a status that lasts an instant on one cluster may
// never be written on another, where the controller looked a moment later. That is no difference of behaviour, so a value
// that lasted less than [Lasting] may be missing in the other run; equal neighbours of a value left out are one. A value
// that lasted longer, and the last one, must be there, in the same order. (If one run's world goes by faster, [Lasting] is
// shorter for it, in proportion to the times that the runs took, but no shorter than [LeastLasting].)
//
//	machineconfigpool  status of each condition; each of the five counts; configuration in spec and in status
//	machineosconfig    status of each condition
//	machineosbuild     its true conditions, as a set
//	machine            phase
//
// Between tracks only the order that a cause imposes is compared, for everything else runs side by side and interleaves
// as the schedule has it. The causes are listed in [Rules]. For each effect that both runs have, the number of its causes that came
// before it must be the same: the image as a node's target after the build that Succeeded, the second boot after the second drain.
// A write that brings both at once counts as in order.
//
// # Speed
//
// On a real cluster boots and builds pass faster (--speed), and the controllers' own pauses of five seconds don't. At a speed of
// 100 a node has booted before the controllers have noticed what was changed meanwhile, and another node is still sent to the old
// image (scenario secret-name, variants mid-rollout). That is a difference, and the world's. At 30, the default with --compare, a
// boot takes longer than a pause, as it does where it takes minutes.
//
// # What is not compared
//
//   - Times, durations, and how long anything lasts, but for what [Lasting] says above.
//   - Messages and reasons of conditions, of nodes' states, and texts of errors: they name times, addresses and counts of attempts, and
//     the short-lived among them are skipped like other levels.
//   - Order between tracks where no rule says so: a pool's counts against its nodes, one build object's creation against another's.
//   - Numbers of running and ready pods of a Job, SuccessCriteriaMet and FailureTarget, Pending pods, ready containers: they pass
//     within a controller's sync.
//   - Readiness of nodes and their taints: whether a reboot is noticed depends on how long it takes against the grace
//     period of the cluster, which may run at another speed.
//   - Which node a pod runs on; workloads; events; refused requests, pulls and retries, whose number is a matter of
//     back-off; faults; who wrote something, and in how many writes.
//   - MachineConfigNodes, which repeat what nodes say.
//   - What happens before the first step: clusters come up in different ways.
package compare
