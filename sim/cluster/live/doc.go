// Package live runs the world around a real API server, in real time.
//
// An [Engine] drives a cluster that [cluster.Assemble] puts together, as the simulated engine does, but the API server is
// a real one, Kubernetes' own controllers are there, and time is the wall's. It is made of four things:
//
//   - Processes. The declarations of components, the bundled controllers' and the world's alike, are attached to
//     controller-runtime managers, one for each replica of a process, by package controllers/manager. Machines, build pods
//     and the registry live in this process, unless the options say otherwise; only their agents' view of the API server is a
//     real one.
//   - The proxy (package proxy). Whoever acts on the cluster, kube-controller-manager and kube-scheduler included, goes
//     through it under a name of its own. Faults strike there, crashes happen there, and it knows who wrote what.
//   - The recorder. A watch of each kind, from one moment on, tells all revisions. They are put into the order of their
//     resource versions, which one etcd counts over all kinds, and each is given its author by the proxy. A revision is
//     held back until whatever came before it must have arrived: for [Hold], and as long as a write is under way that
//     began earlier.
//   - The registry's front (package agent). It speaks the protocol of HTTP proxies and, within it, TLS under the names that
//     the registry's hosts have: http://USER@HOST:PORT as a process's HTTPS_PROXY, with the certificate authority in
//     SSL_CERT_FILE. So scenarios name images as they do everywhere, and no name has to be resolved. It is a port of loopback
//     where the registry lives in this process.
//
// The bundled controllers act under the service accounts of their manifests (package fixtures), with just the rights that
// hack/rbac collects from the code, whether they run here, as programs or as pods; what the API server forbids them is in
// the history. Everybody else is an administrator.
//
// With [Options].Deployment the bundled controllers are pods: each replica is a Deployment made from its manifest. To stop it
// is to scale it to nothing, to crash it is to cut it off from the API server and to delete its pod. Their way to the API
// server is the proxy's, by a kubeconfig in a Secret of each life whose URL can't be guessed. Their logs are followed.
//
// With [Options].BuildImage build pods are real: made by the Job controller, run by a kubelet, in an image with layersim's
// agent. An admission policy puts them on the nodes that have a kubelet and lets them take the image that is there; another
// one keeps workloads, which have no image, on the simulated nodes. The ControllerConfig names the registry's front as the
// cluster's proxy and its authority as the additional trust bundle; so the pods are given both as on any cluster with a proxy.
// Their agents ask this process whether a phase may begin and what the package repositories are like, at the address that is
// the cluster's proxy for what has no TLS. Containers' logs are read while they run.
//
// With [Options].Registry the registry is a Deployment: image-registry in namespace openshift-image-registry, with a Service of
// that name, a ServiceAccount without rights, and its images in the folder [RegistryStorage] of the node, one below it for each
// run. It is reached by its front's proxy at the Service's address, or, without a proxy, under the Service's names and address;
// the container runtime of the node is told the address, so that a kubelet pulls what images name. It asks this process
// before each request, where faults are counted, and tells it of each answer before that is given; accounts, quotas and
// deletions go to it by the API server's proxy of its Service. See package agent.
//
// With [Options].Nodes the machines are in the pod of a Deployment, node-agents in namespace [AgentsNamespace], which keeps them
// on its node's disk and may end at any time. It asks this process before a phase, tells it what became of a machine before
// anybody else can see it, and gets its orders by the API server's proxy of its Service.
//
// With [Options].Outage the API server may be gone for a while, by a fault. Where it can't go on with a watch afterwards, for it
// remembers no revision from before, the kind is listed again, and what changed meanwhile is one change an object.
//
// The history, and so the judgement, is the same as on the simulated cluster: one goroutine, the one that calls Step, adds
// records and judges.
//
// # Time
//
// How long things of the world take (boots, pulls, builds, the waits of a scenario) is divided by [Options.Speed]. What
// is Kubernetes' own or the controllers' is not: the Job controller's back-off, delays, rate limits, leases. Times of the
// history are the wall's. A step gets at least [Patience].
//
// A cluster is at rest when no write is under way, all of them have been seen by the recorder, nothing has changed for
// [Settled], and nobody makes a pause that could end within [Quiet] of the last change: no component will look again, no Job
// is unfinished. Components in this process and in layersim's agent tell that by themselves, those of controllers in the
// cluster by a metric, [manager.NextReconcileMetric]. Where a program has no such metric, as upstream's, nobody knows, and the
// cluster is at rest when nothing has changed for [Quiet].
//
// # What it can't do
//
// Watches of a process can't be held back; nothing is repeatable by a seed but the ids of machines and passwords.
package live

import "time"

const (
	// Speed is the default of Options.Speed.
	Speed = 50
	// MinimumBuild is the least time that a build takes: twice the pause after which the build controller looks at it, so that
	// it is seen running.
	MinimumBuild = 10 * time.Second
	// Patience is the least time of a step: the back-off of a Job's four pods takes 70 s by itself.
	Patience = 5 * time.Minute
	// Settled is how long nothing may have changed until a cluster counts as being at rest, where it is known that nobody
	// pauses: longer than what queues and Kubernetes' controllers need to react, and than the components' delays, of which
	// the longest is the node controller's five seconds.
	Settled = 10 * time.Second
	// Quiet is the same where that isn't known: longer than the longest pause that controllers make without cause to see,
	// which is the Job controller's back-off of 40 s before a Job's fourth pod.
	Quiet = 45 * time.Second
	// BringUp is the same for a new cluster: longer than the pause that controllers make before they react.
	BringUp = 6 * time.Second
	// Hold is how long a revision waits for others to come before it.
	Hold = 25 * time.Millisecond
)

// Capabilities are what a real cluster can do that scenarios may ask for by needs.
var Capabilities = []string{"real-kube", "crashes", "power"}
