// Package node is the world's machines: their disks, boots and deployments, and the two agents that live on them, the
// kubelet and the machine-config-daemon.
//
// # Machines
//
// A [Fleet] holds all machines. A machine, a [Host], is physical: it survives restarts of agents and of the API server.
// It has deployments as rpm-ostree keeps them (booted, staged, rollback), the files of its MachineConfig, the
// machine-config-daemon's own state on disk, and it boots, counted from 1. [Fleet.Install] adds a machine that already
// runs; [Fleet.Provision] adds one that boots for the first time: from the boot image, which is not counted, it pivots
// to its base image and reboots, which is boot 1, and joins as a Node. Being targeted with a custom layered image then
// costs boot 2.
//
// Time on a machine is derived, not driven: each transition has a due time, and whoever looks at a machine first sees
// all transitions that are due. Each is reported to [FleetOptions.Observe] as a record of the history:
//
//	rebase    rpm-ostree began to pull and write an image
//	stage     the new deployment is staged for the next boot
//	shutdown  the machine began to go down
//	notready  the kubelet stopped (at the same moment)
//	boot      a kernel started; the record says into what
//	ready     the kubelet posted Ready
//	drift     a file was changed by hand, or restored
//
// # rpm-ostree
//
// A rebase pulls manifest, config and the layers that the machine doesn't have by the real registry protocol, as caller
// "node/<name>", with the credentials of the node: ControllerConfig.spec.internalRegistryPullSecret laid over the global
// pull secret, both read at each attempt. It then takes RebaseFixed plus the image's label io.layersim.compressed-size
// (without it, the sum of the layers) divided by Bandwidth. A staged deployment becomes the booted one at the next boot
// and the one that was booted becomes the rollback. [Host.Status], [Host.StatusJSON] and [Host.PackageList] answer like
// `rpm-ostree status`, `rpm-ostree status --json` and `rpm -qa`. An image that was built on the cluster (label
// machineconfig) is shown as ostree-unverified-registry:, a base image as ostree-unverified-image:containers-storage:,
// as the product documentation shows the two.
//
// # machine-config-daemon
//
// One component for all nodes, keyed by node name; it acts on a machine only while that machine's kubelet runs. An
// update is needed when desiredConfig or desiredImage differ from what is on disk, or the state is not Done. Then:
//
//	Working (not over Degraded) -> desiredDrain=drain-<config>, wait for lastAppliedDrain, 1 h -> rebase -> staged
//	-> files, currentconfig and currentimage on disk -> post-config-action=Rebooting -> reboot -> cleared
//	-> desired again different: next update without uncordon -> desiredDrain=uncordon-<config>, wait, 10 min
//	-> one patch: state=Done, reason="", currentConfig, currentImage (deleted where there is none)
//
// A target, once begun, is kept to the reboot or to the first failure, like the daemon's. Failures are told in the
// annotation reason with state=Degraded, the node stays cordoned, and the update is tried again after 1 s doubling to
// 60 s. A rebase is tried three times, after waits of 10 and 20 s, and fails after a last wait of 40 s; once Degraded,
// each retry is a single attempt, so that a repaired secret or registry heals a node within 60 s. (The daemon repeats
// all three attempts.)
//
// Reverting to the base image boots into the rendered config's osImageURL with one reboot, as the product documentation
// says; upstream's main needs a second one for its revert service: [FleetOptions.RevertReboots] = 2. A change of files
// alone drains and reboots, as node disruption policies are not supported on layered nodes; [FleetOptions.LiveFiles]
// applies files without drain or reboot. Configs that differ in name only need neither.
//
// A file of the MachineConfig that was changed by hand ([Host.WriteFile]) makes a node Degraded with "unexpected on-disk
// state validating against ...", before an update as well as at rest; restored, the next retry heals it.
//
// MachineConfigNodes are created and kept: spec.pool, spec.configVersion, status.configVersion and the conditions
// Updated, UpdatePrepared, UpdateExecuted, AppliedFilesAndOS, Cordoned, Drained, RebootedNode, Resumed, UpdateComplete,
// Uncordoned and NodeDegraded, in one status write for each phase: prepared, drained, applied, rebooted, done, degraded
// ([FleetOptions.NoMachineConfigNodes] saves about half of the cost of a rollout).
// The daemon writes the drain controller's conditions too. PinnedImageSets, configImage and the other conditions are not
// modelled. In a cluster that doesn't serve the kind nothing is reported.
//
// # kubelet
//
// Registers the Node, posts Ready and nodeInfo once a boot (no heartbeats while healthy: [Fleet.Heartbeat] tells), and
// when a machine has been silent for MonitorGrace stands in for the node lifecycle controller with Ready=Unknown,
// NodeStatusUnknown. Pods bound to its node become Running and Ready after PodStart; deleted ones go after the shorter
// of their grace period and 2 s; all are restarted by a reboot (restartCount + 1). Pods that have a container image-build
// are left to package builder. Containers never end by themselves, and nothing checks probes, images or resources.
//
// # Waking
//
// Agents act on API events and on due times. What happens to a machine from outside, [Fleet.Provision], [Host.WriteFile]
// or [Host.Reboot], is no API event: [FleetOptions.Wake] tells the driver to queue the node's key. Without it such a
// change is seen at the key's next reconcile; a new machine also at the next event of its Machine ([ComponentOptions]) or of the
// ControllerConfig.
//
// # Storage
//
// A Fleet lives as long as its process. With [FleetOptions.Storage] its machines live longer: whatever changes on one is saved
// before anybody sees it, with the records that are to be told of it, and [Fleet.Restore] brings the machines back into a
// new Fleet, wherever they were: in the middle of a pull, with a staged deployment, down, booting. What fell due in between
// happens then; due times are those of the clock. The agents start with empty memory, as after their own restart, while the
// machine under them has not rebooted: containers go on, waits for a drain lose their deadline, a rebase that was pulled is
// not pulled again. A record that may not have been told is told again: see [FleetOptions.Tell].
//
// # Faults
//
// [FleetOptions.Before] is asked before each phase; an error makes the phase fail with it. Phases: drain, pull, stage,
// reboot, boot, uncordon, done. With an error that is [ErrHang] the phase hangs instead of failing: nothing is written,
// and it is asked again every 30 s. A boot hangs with any error.
package node
