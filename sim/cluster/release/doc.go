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
// What is here is data, found by running the programs of release-4.18 and main on a bare control plane; the releases in
// between are put together from their sources. Nothing of upstream's is part of this module, so the programs and the folder
// "templates" of upstream's repository are the user's to bring. A binary that was built by plain `go build` is "un-stamped";
// [ControllersVersion] asks it what it calls itself, which the ControllerConfig must repeat.
//
// # The cluster
//
// ServiceAccount admission must be on, and of kube-controller-manager at least the Job, garbage collection, namespace,
// service account and node lifecycle controllers. Nobody needs permissions other than a cluster administrator's. The
// kubeconfig of a program may hold a plain http URL with a path. The registry must speak TLS; [Parameters].Trust holds its
// CA, which reaches the programs by ControllerConfig.spec.additionalTrustBundle, and before 4.20 by SSL_CERT_FILE only.
//
// The template controller writes the MachineConfigs 00-, 01- and 97- to 99- of each role; a cluster must not bring its own of
// these names. It needs about ten seconds, then the pools are rendered. Pools have their names as a label:
// pools.operator.machineconfiguration.openshift.io/<name>, and the selectors that [Pool] shows.
//
// Nodes need the label of their role, the condition Ready, and the annotations currentConfig and desiredConfig (the name
// of a rendered config that exists) and state=Done. The controllers don't create MachineConfigNodes; where
// Release.MachineConfigNodes is set, they write conditions into those that are there, and log errors for missing ones.
//
// # Build pods
//
// The Job is build-<machineosbuild>, in all releases with backoffLimit 3 and ServiceAccount machine-os-builder. Its pods
// have two layouts. Both have the environment variables TAG, BASE_IMAGE_PULL_CREDS=/tmp/base-image-pull-creds/config.json,
// FINAL_IMAGE_PUSH_CREDS=/tmp/final-image-push-creds/config.json, DIGEST_CONFIGMAP_NAME, DIGEST_CONFIGMAP_LABELS (key=value,
// divided by spaces up to 4.22, by commas in main), HOME, MAX_RETRIES and the proxies' in all containers, and these mounts:
// /tmp/containerfile (key Containerfile), /tmp/machineconfig (machineconfig.json.gz, base64 of gzip),
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
//     controller of every release removes registries' folders in it. [Process.Command] hides it: the programs see a copy of
//     /etc/docker, or of /etc, that is lost with them. This takes Linux and root, or else user namespaces; without, the
//     programs don't start.
//   - Leases last. A program that was killed holds back its successor for up to three minutes, unless Process.Lease is
//     deleted first. The builder of 4.18 and 4.19 takes 30 s to end by SIGTERM.
//   - A build that ends within 20 s of a deletion meets the controllers' late handlers, as no real build does: see
//     [MinimumBuild].
//   - Every release reacts about five seconds after a cause, and the builder makes five requests a second.
//   - main: a MachineOSConfig without base image pull secret needs the Secret global-pull-secret-copy, or the builder panics;
//     so do 4.18 and those in between. [Release.Objects] makes it.
//
// # Deviations
//
// What a run shows that no cluster of the release would: the feature gate OSStreams is off, because the controllers would
// inspect the release's images; OnClusterBuild is on in 4.18; there is no machine-config-operator, so that nothing updates
// the ControllerConfig, the copy of the pull secret and the pools' upgrade state unless a model does; the API server is of
// another version. The definitions of 4.22 are a few months older than its newest z-stream.
package release
