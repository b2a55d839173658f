// Package agent is what layersim and its agents have in common: the channel between them, and the agents themselves, as far as
// they are no programs of their own (cmd/layersim-agent has main).
//
// An agent is a pod that plays a part of the world in a real cluster. Whatever is decided in one place for the whole world
// (faults and how often they have fired, the history, durations) stays in layersim's process; what acts is in the cluster.
//
// # The channel
//
// It has two directions, and both are the same protocol: an [Asker] posts a question to a path of the other end's [Answers],
// as JSON, and gets an answer, as JSON. A question may be an order, or news; then the answer is empty, and says that it was
// done or noted. An answer comes after the fact: who tells news and waits for the answer knows that the history has it before
// anything that is done afterwards.
//
//	agent -> layersim     over HTTP to an address of the machine in the cluster's own network. Where, and the token of the run, is
//	                      in the file [WorldFile] of the folder [Given], a Secret of the run: http://NAME:TOKEN@HOST:PORT. Build pods,
//	                      which layersim doesn't make, have it as their HTTP_PROXY.
//	layersim -> agent     over the API server's proxy of a service or a pod, to the agent's port [AdminPort], with the same token.
//	                      So the way is the API server's, and no port of the machine leads into the cluster.
//
// A question is asked again while nobody answers: the other end may be starting, or starting again. So an order must be one
// that may be given twice. After [Asker].Patience the error says who could not be reached, and why. What the other end
// answers with an error is not asked again, unless it says that it can't tell yet (see [ErrNotYet]).
//
// A token belongs to one run. An agent that outlives its run is refused by the next one, and refuses it, until it is
// replaced by an agent with new [Given] files.
//
// # The registry
//
// [Registry] is package sim/registry as a program, behind a [Front]: TLS on port [RegistryPort], and an HTTP proxy on port
// [ProxyPort] whose tunnels end in the same TLS, so that its callers say who they are and need not resolve a name. Who comes
// without the proxy is known by the address of a pod or a node. Before each request the agent asks layersim what becomes of
// it, and before it answers it tells layersim that it did. Its accounts and quotas are layersim's, which it asks for when it
// starts; its images are on disk, in a folder of the run. So its pod can be deleted at any time: what was pushed, and what was
// ordered, is there again with the next one. An upload that was under way has to begin anew.
//
// While layersim doesn't answer, requests wait, for [Patience], and then their connections are closed.
package agent
