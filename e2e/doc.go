// Package e2e runs the library of scenarios on a real cluster as a Ginkgo suite: one spec a scenario, variants included.
//
//	hack/suite                                       all scenarios
//	hack/suite --procs=6 --label-filter=conformance  what a release must pass, six side by side
//	hack/suite --label-filter='area:pool' --focus=replace
//	hack/suite --repeat=19 -- -speed=100             twenty times; flags of the suite come after --
//
// All of it is behind the build tag e2e, so that `go test ./...` starts no control plane. hack/suite is
// `go tool ginkgo --tags=e2e ./e2e` with lines that tell what goes on; `go test -tags=e2e ./e2e` works too, with Ginkgo's flags
// spelt -ginkgo.label-filter and so on, in one process. Of `make`, `make test` runs the scenarios of conformance,
// `make e2e-envtest` all, and `make e2e` those of conformance and the faults of a cluster on kind.
//
// # Flags of the suite
//
//	-cluster    envtest (the default): a real control plane on this machine, built by `make controlplane`. Each Ginkgo
//	            process starts one when its first spec needs it and stops it at the end. kind: a real cluster in containers,
//	            one for each process as well, of the programs that `make live` has built. sim: the simulated cluster, a
//	            quick look at what the suite does.
//	-scenarios  the file or folder of the scenarios; default scenarios
//	-artifacts  the folder for what a failed scenario leaves; default out/e2e
//	-keep       keep the artifacts of scenarios that passed, too
//	-speed      how many seconds of boots, pulls and builds pass in one second
//	-progress   a file, such as a named pipe, to which a line goes for each step that a scenario begins
//
// Paths are relative to the root of the repository.
//
// # Specs
//
// A spec is named after its scenario and located in the scenario's file. Its labels are area:AREA; conformance, where the
// scenario shows one of the behaviours without which layering is of no use; needs:CAPABILITY; and, where it holds for some
// releases only, release:RELEASE for each of them, so that --label-filter='release: isEmpty || release: containsAny 4.18'
// chooses those of 4.18.
//
// A spec fails when the scenario failed and when it could not be run. It is skipped, with the reason, when the cluster lacks
// what the scenario needs, and when the scenario doesn't hold for the newest release. The failure message says what was
// wrong, with the timeline before it as `layersim run` prints it, and where the artifacts are.
//
// A scenario is judged by its history as it is being made: nothing here polls or sleeps, and times are those of the
// scenario's steps. Specs are independent of each other, whatever their order and whoever runs beside them.
//
// # Artifacts
//
// The folder of a scenario is named after it, below -artifacts, and is emptied when the scenario begins:
//
//	history.jsonl   the whole history
//	timeline.txt    the failures and the whole timeline
//	registry.txt    the requests that the registry answered
//	logs/           the output of the cluster's programs during the scenario; on kind also that of kubelet, containerd and all
//	                pods since the cluster was made, in logs/kind
//
// # Interruption
//
// Ctrl-C, SIGTERM and Ginkgo's timeouts end the scenario that is running, which fails and leaves its artifacts, and stop the
// control plane. When the suite is killed, the control plane ends by itself.
package e2e
