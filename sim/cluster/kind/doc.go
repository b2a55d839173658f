// Package kind runs a real cluster in containers: one node of kind, driven in process, on the Docker engine of this machine.
//
//	cluster, err := kind.Up(ctx, kind.Options{Name: "layersim", Archives: []string{"agent.tar"}})
//	...
//	err = kind.Down(ctx, cluster.Name, nil)
//
// On a [Plane] scenarios are run: a cluster with layering's kinds, the controllers' and the world's images, and a [live.Server].
// What can happen to the node itself by faults on host is in host.go.
//
// # What Up makes
//
// One node that is control plane and worker at once: pods are scheduled to it, its label [history.World] tells it from the simulated
// nodes, and it has no label of a machine config pool. kube-proxy works with nftables; the network of pods is a static ptp
// network, so that no image of a network plugin is needed; nothing is audited, collected or fsynced. The pods of the system
// stay on this node when simulated nodes join. The node image is the one that hack/nodeimage leaves on the machine.
//
// Images come from archives, see WriteImage, and are never pulled, unless from a registry inside the cluster: Registry tells
// the node how it is reached.
//
// # What it owns
//
// Everything on disk is in a folder below $XDG_CACHE_HOME or $HOME/.cache, layersim/kind/<name>: the kubeconfig, what the
// node mounts, and a lock that lets one Up or Down at a time work on a cluster. The user's kubeconfig is neither read nor
// written. A cluster is layersim's if its containers mount that folder. Up adopts such a cluster when it answers, and Down
// deletes no other. One process at a time runs scenarios on it; where it was killed in the middle of one, the next makes the
// cluster anew. The network called kind, which all clusters of kind share, is removed with the last cluster if it was
// made for one of ours.
//
// # Isolation
//
// Nothing leaves the node but to its own Docker network: before the node starts its first container, it is given a rule
// that rejects all else. So nothing on the host has to be changed. What is sent to the address of a Service that isn't there
// (any more) kube-proxy drops, so that who connects to one has to give up by itself. Pods resolve the names of the cluster;
// no other name exists for them.
//
// # Limits
//
// Linux only, for the nodes are containers that share the machine's kernel. One node: a kubelet is a real one here, and the
// simulated nodes have agents instead. An interrupted Up leaves what the next Up, or Down, removes.
package kind
