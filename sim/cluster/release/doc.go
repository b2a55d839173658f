// Package release knows what the controllers of upstream's releases need of a cluster, so that the real programs can be put
// into one: machine-os-builder and machine-config-controller, unpatched, as they were built or cut out of an image.
//
//	r, err := release.For("4.18")                   // or "main"; release.Names lists them
//	crds, err := r.CRDs()                           // install them
//	err = release.Install(ctx, admin, r.Objects(p)) // before pools and nodes
//	for _, process := range r.Processes(run) {      // the builder and the controller
//		cmd, err := process.Command(ctx, folder)      // start it, keep its output
//	}
//
// What is here is data, found by running the programs of 4.18, 4.20 and main (August 2026, which 5.0 is like) on a bare
// control plane; the other releases are put together from their sources. Nothing of upstream's is part of this module, so
// the programs and the folder "templates" of upstream's repository are the user's to bring. A binary that was built by
// plain `go build` is "un-stamped"; [ControllersVersion] asks it what it calls itself, which the ControllerConfig must
// repeat.
//
// To see that programs run, without a scenario, put those of a release and its templates into a folder with the release's
// name, and name the folder above it:
//
//	LAYERSIM_UPSTREAM=/path/above go test -tags=upstream -v ./sim/cluster/release
//
// # The cluster
//
// ServiceAccount admission must be on, and of kube-controller-manager at least the Job, garbage collection, namespace,
// service account and node lifecycle controllers. Nobody needs permissions other than a cluster administrator's. The
// kubeconfig of a program may hold a plain http URL with a path. The registry must speak TLS; [Parameters].Trust holds its
// CA, which reaches the programs by ControllerConfig.spec.additionalTrustBundle, and before 4.20 by SSL_CERT_FILE only.
//
// The template controller writes the MachineConfigs 00-, 01- and 97- to 99- of each role; a cluster must not bring its own
// of these names. It needs about ten seconds, then the pools are rendered. Pools have their names as a label:
// pools.operator.machineconfiguration.openshift.io/<name>, and the selectors that [Pool] shows.
//
// Nodes need the label of their role, the condition Ready, and the annotations currentConfig and desiredConfig (the name
// of a rendered config that exists) and state=Done. They may join without these, but not without any annotation at all, or
// machine-config-controller panics (assignment to entry in nil map); no real node does, since kubelets write
// volumes.kubernetes.io/controller-managed-attach-detach. Where Release.MachineConfigNodes is set, the controllers write
// the spec and conditions of MachineConfigNodes, as the nodes do; for missing ones they log errors and go on. main gives a
// node the labels of a custom pool by the annotation firstPivotConfig, if the node's first config was that pool's.
//
// A registry counts as the internal one, from which images are deleted as ImageStreamTags, by the Services and Routes of
// namespace openshift-image-registry. Without any, images are deleted by the registry's own API.
//
// # Build pods
//
// The Job is build-<machineosbuild>, in all releases with backoffLimit 3 and ServiceAccount machine-os-builder. Its pods
// have two layouts. Both have the environment variables TAG, DIGEST_CONFIGMAP_NAME, DIGEST_CONFIGMAP_LABELS (key=value,
// divided by spaces up to 4.22, by commas in main), BASE_IMAGE_PULL_CREDS=/tmp/base-image-pull-creds/config.json,
// FINAL_IMAGE_PUSH_CREDS=/tmp/final-image-push-creds/config.json, HOME, MAX_RETRIES and the proxies' in all containers, and
// these mounts: /tmp/containerfile (key Containerfile), /tmp/machineconfig (machineconfig.json.gz, base64 of gzip),
// /etc/pki/ca-trust/source/anchors (openshift-config-user-ca-bundle.crt, from binaryData), /etc/containers/policy.json and
// registries.conf (by subPath, optional), the credentials, and an emptyDir /tmp/done for the file digestfile.
//
//	4.18, 4.19      containers image-build and wait-for-done, side by side. The latter creates the ConfigMap with `oc create
//	                configmap`: one that exists makes it fail.
//	4.20 and later  init container image-build, then container create-digest-configmap, which runs `machine-os-builder
//	                create-digest-configmap`: one that exists is updated.
//
// The ConfigMap's key is digest. The Containerfile has RUN lines with process substitution, <(command), and where there are
// extensions a mount of their image; package builder runs both layouts.
//
// # Hazards
//
//   - The builder of 4.18 and 4.19 fills /etc/docker/certs.d of the machine that it runs on, and then removes it; the
//     controller of every release removes registries' folders in it. [Process.Command] hides it: the programs see an empty
//     /etc/docker, or, where the machine has none, an /etc whose changes are lost with them. This takes Linux and root, or
//     else user namespaces; without, the programs don't start.
//   - Leases last. A program that was killed holds back its successor for up to three minutes, unless Process.Lease is
//     deleted first. The builder of 4.18 and 4.19 takes 30 s to end by SIGTERM.
//   - A build that ends within 20 s of a deletion meets the controllers' late handlers, as no real build does: see
//     [MinimumBuild].
//   - Every release reacts about five seconds after a cause, and the builder makes five requests a second.
//   - A MachineOSConfig without base image pull secret needs the Secret global-pull-secret-copy, or the builder panics, in
//     every release. [Release.Objects] makes it where it is told the credentials.
//
// # Deviations
//
// What a run shows that no cluster of the release would: the feature gate OSStreams is off, because the controllers would
// inspect the release's images; OnClusterBuild is on in 4.18; there is no machine-config-operator, so that nothing updates
// the ControllerConfig, the copy of the pull secret and the pools' upgrade state unless a model does; the API server is of
// another version. The definitions of 4.22 are a few months older than its newest z-stream.
//
// # What the library showed
//
// The library was run on envtest with the programs of main (7ff337a4f), release-4.20 (afed09939) and release-4.18
// (f313997e0). A scenario passes, is skipped since it holds for other releases, or fails by a defect that [Defects] lists,
// defects.yaml; [Known] tells. What is left:
//
//   - A pool whose build is Failed (or, on main, Interrupted) never comes to rest, since 4.20: the node controller sets a
//     condition to one value and then to another in one sync, so that its lastTransitionTime is new each time, and its own
//     write is the event that causes the next sync. A pool all of whose nodes run an older image is spared.
//   - A node that loses its only pool causes no sync of the pool that it left, which claims it until something else happens.
//   - A build that is held for want of a Secret tells nobody but the builder's log.
//   - The MachineOSBuild that an edit supersedes lives on until the new one starts, five seconds after that was created.
//   - In 4.18 the taint UpdateInProgress stays on every node of a layered pool, so that the scheduler shuns it.
//   - Until 4.20 every other new image of an unchanged configuration is never rolled out (OCPBUGS-63006).
//   - In 4.20 a pool that has an image of an older build never says that a newer one failed (OCPBUGS-61114).
//   - Until 4.22 an image is deleted with its MachineOSConfig though nodes run it (OCPBUGS-59197). 4.18 and 4.19 spare images
//     that are pushed with a Secret of type kubernetes.io/dockercfg, as the library's are, for they can't read it.
//
// What holds for some releases only, and is no defect, is in the scenarios, as since and until: before 4.20 a pool has no
// condition ImageBuildDegraded, and nothing but the MachineOSBuild tells of a failed build; before 4.21 a MachineOSConfig does
// not name its MachineOSBuild in its status.
//
// Where main passes, it leaves the milestones that the bundled controllers leave on sim, in the same causal order, but for
// these: pools have PinnedImageSetsDegraded; builds have the ConfigMaps etc-policy and etc-registries, since upstream's
// template controller writes the files that are in them; the annotation for the current build is taken away before it is set
// anew when a pool gets another configuration; the image of a MachineOSConfig that was replaced stays in the registry; and a
// pool whose nodes run an older image keeps Degraded=False and Updating=True when a newer build fails.
//
// # Recordings
//
// TestRecordings does what was done in recordings of upstream's controllers, on a bare control plane with players for nodes
// and build pods, and compares the milestones that package compare makes of both. The scenarios of testdata/recorded follow
// them; what is unlike, and why, is in testdata/differences.yaml. The recordings are not part of this module:
//
//	LAYERSIM_RECORDINGS=/path/to/recordings go test -tags=upstream -run Recordings ./sim/cluster/release
//
// does it with the bundled controllers, and with LAYERSIM_HISTORIES=h.jsonl it compares the runs of
// `layersim run --cluster envtest --controllers DIR --release NAME --history h.jsonl sim/cluster/release/testdata/recorded`.
//
// Of main all recordings are followed but s03b, which ends in the builder's panic, and s05, whose nodes join as machine sets'
// don't; of 4.18 those that show something else than main's, or the same by another release: s01, s06, s08c, s09, s10a,
// s10b and s12. In layersim's world the programs of main left the recorded milestones in s02c, s04, s06 to s10, s12 and s14, and
// those of 4.18 in s01, s06, s09, s10a, s10b and s12.
//
// Milestones have no messages and no events. In these the bundled controllers differ from the recordings of main so:
//
//   - Conditions of pools, MachineOSBuilds and Jobs have upstream's types, statuses, reasons and messages, except for
//     ImageBuildDegraded: while it is False, its message is the build controller's alone ("Build started for pool layered"),
//     where upstream's node controller puts another ("New build started"); before a build it is False with BuildPending; and when
//     it is True, the message ends in the reason why the pod failed.
//   - Events have upstream's reasons and types, and texts of their own. Their source is the component's name ("node-controller",
//     upstream: "machineconfigcontroller-nodecontroller"), and those about objects without a namespace are in default (upstream's
//     node and render controllers: openshift-machine-config-operator). JobDeleted, PoolConfigChanged and ConfigDeleted don't
//     exist, and BuildHeld is new.
//   - The conditions of MachineConfigNodes are all the nodes' (package node), where upstream's drain controller writes Cordoned,
//     Drained and Uncordoned, with the state of the drain in their messages.
//   - The rendered config does not change with the global pull secret, which is in no file of it.
//   - A MachineOSBuild that is deleted when its image has been rolled out is made again at once; upstream does so when something
//     else happens to the pool.
package release
