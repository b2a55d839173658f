// Package builder models what runs inside a build pod: the kubelet's part, buildah's, and the script's that hands the
// image's digest back. It also makes the images: the base OS image, and those that are built from it.
//
// # The component
//
// [New] declares the component "build-pod". It runs each scheduled pod (spec.nodeName is set) that has a container
// named image-build, see [IsBuildPod]; all other containers of the pod are taken for the one that hands the digest over:
// wait-for-done beside image-build, or, where that is an init container, as in upstream's releases from 4.20 on,
// create-digest-configmap after it. A pod goes through
//
//	Pending   ContainerCreating: the ConfigMaps and Secrets of its volumes must exist, or else it stays there with an
//	          event FailedMount and tries again
//	Running   2/2: pull, build, push; then image-build ends (1/2) and a second later wait-for-done
//	Succeeded 0/2 Completed
//	Failed    0/2 Error: both containers ended with 1, and the log's tail is the termination message where the
//	          container's terminationMessagePolicy is FallbackToLogsOnError
//
// and with an init container through
//
//	Pending   PodInitializing until the mounts are there, then Init:0/1 while image-build runs
//	Running   1/1 for a second, a second after image-build has ended
//	Succeeded 0/1 Completed
//	Failed    Init:Error when image-build failed, and nothing followed; 0/1 Error when the digest could not be written
//
// A ConfigMap with the digest that exists is updated, unless the container's command says `oc create configmap`.
//
// A deleted pod is stopped at once (exit code 143) and then removed with grace period 0, as the kubelet does.
//
// Everything that a build needs comes from the pod's own spec, as in a real pod: the environment variables TAG,
// BASE_IMAGE_PULL_CREDS, FINAL_IMAGE_PUSH_CREDS, DIGEST_CONFIGMAP_NAME, DIGEST_CONFIGMAP_LABELS, and the files of
// mounted ConfigMaps and Secrets: /tmp/containerfile/Containerfile, the credentials at the paths that the variables
// name, the rest as build context. A file in a mounted volume changes when its object does, and stays as it was when
// its object is deleted. Credentials are read when they are needed: the pull secret when the pod starts to pull, the
// push secret when it pushes.
//
// Pulls, pushes and the ConfigMap with the digest happen under the caller name "build-pod/<pod>".
//
// # Real build pods
//
// On a real cluster layersim's agent (cmd/layersim-agent) is the programs of the build pods' image. It makes the same
// [Attempt] as a simulated pod, with the container's own environment, files and network, and waits for as long as each
// phase takes. Before each it gets an [Answer].
//
// # Restarts
//
// The component keeps nothing that a restart may not lose: each reconcile compares the pod with its process and
// writes the status. The process itself (what was pulled, what was built, when the next phase ends) lives in a table
// that belongs to the declared Component and not to its reconciler, as a process on a node lives on while the kubelet
// restarts. Should the table be lost too, as in another operating system process, a running pod's build starts over.
//
// # Time
//
// A build takes [Durations].Start + base size / PullBandwidth + Base + PerPackage for each package put in or taken
// out + image size / PushBandwidth. Sizes are those that the real images would have. A build that fails takes
// Durations.Fail in place of Base and PerPackage. There is no timeout of any kind, as upstream has none.
//
// # Containerfile
//
// A real parser takes the file apart (openshift/imagebuilder). Only stages that the last one needs are built.
// Interpreted are FROM, ARG, ENV, LABEL, USER, WORKDIR, CMD, ENTRYPOINT, EXPOSE, VOLUME, STOPSIGNAL, COPY and ADD
// (from stages, images, the build context, here documents), and RUN as line, JSON list or here document. RUN is a
// small POSIX shell (lists, pipelines, redirections, quoting, variables, globs, if, for, set -e); it knows
//
//	rpm-ostree install, remove, uninstall, override remove and replace (with --install), refresh-md, cleanup
//	dnf, yum, microdnf: install, reinstall, remove, swap, update, makecache (with -y, --enablerepo, --disablerepo)
//	rpm -q, -qa, -i, -U, -e; ostree container commit; bootc container lint; systemctl enable, disable, mask, unmask
//	echo printf cat tee cp mv ln rm touch test base64 gunzip cd export set exit true false exec sudo env sh
//
// Any other command succeeds, with a line in the log: "# sed: not modelled, taken to succeed". Packages come from
// [Repositories]; an unknown package and an unreachable repository fail in rpm-ostree's and dnf's words.
//
// # Images
//
// An image is a real OCI image whose layers are tiny. Its package list is the file /usr/share/rpm/packages.json in its
// uppermost layer, a JSON list of {"name","evr","arch"}. The label io.layersim.compressed-size and, for each layer,
// the annotation [registry.SizeAnnotation] give the bytes that the real one would have. Labels: version (a built image
// keeps its base's), containers.bootc, ostree.bootable, ostree.linux; and in an image built on a cluster those that
// the Containerfile sets: baseOSContainerImage, machineconfig, machineconfigpool. The same inputs at the same time give
// the same bytes; files have no time, but the config's "created" is the end of the build (to the second), so that a
// rebuild gets a new digest, as with buildah.
//
// # What it does not do
//
// It does not pull the containers' own images, so that there is no ImagePullBackOff. An agent can't say why it ended: a
// container that a fault kills has exit code 137, but the reason Error in place of OOMKilled. Retries inside the pod (MAX_RETRIES of older releases) are not made:
// each pod tries once. Ignition's files, scriptlets, file conflicts and dependencies beyond those that a [Package]
// names are not applied. Signature policy, registries.conf (mirrors), entitlements, trust bundles and proxies are not
// looked at. A node that reboots does not take its build pods with it unless it is drained.
package builder
