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
// Runs of upstream's main (7ff337a4f) on envtest, where they end otherwise than those of the bundled controllers:
//
//   - build-failure-three-retries and build-secret-revoked-mid-build never come to rest. While a build is Failed, the node
//     controller writes the pool's status every five seconds: it sets a condition to one value and then to another in one
//     sync, so that its lastTransitionTime is new each time, and its own write is the event that causes the next sync.
//   - label-revert-no-second-pool: a node that loses its only pool causes no sync of the pool that it left, which claims it
//     until something else happens.
//
// The happy path, a failing build that succeeds in the end, the paused pools, the scale-up and the revert by label end as with
// the bundled controllers. So does the happy path on 4.18 (f313997e0).
package release
