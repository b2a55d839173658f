// Package scenario is the language in which scenarios are written: its reader, its checks and its manual, which you are
// reading.
//
// A scenario is a YAML file that reads like a runbook: on this cluster, do this, then that must come of it.
//
//	kind: Scenario
//	name: build-failure
//	area: build
//	shows: a build that keeps failing is retried three times and then reported; a fix builds and rolls out
//	source: {seed: In the case of a build failure, upstream: TestGracefulBuildFailureRecovery}
//	cluster: two-pools
//	steps:
//	  - the package repository is down:
//	      fault: {on: repository, do: unreachable}
//	  - ask for an image:
//	      apply: fixtures/layered.yaml
//	      within: 15m
//	      expect:
//	        - machineosbuild layered-*: {condition: Failed}
//	        - pods build-layered-*: {count: 4, phase: Failed}
//	        - machineconfigpool layered: {row: layered rendered-layered-* False False True}
//	      never:
//	        - a node is touched: {node *: {where: "has(object.spec.unschedulable)"}}
//	  - repair the repository and ask again:
//	      heal: repository
//	      annotate: {machineosconfig layered: {machineconfiguration.openshift.io/rebuild: ""}}
//	      within: 1h
//	      expect: {machineconfigpool layered: {updated: 2}}
//
// [Load] and [Parse] turn files into [Scenario] values, with names resolved, files read, variants expanded and everything
// checked that can be checked without a cluster. They report all mistakes at once, each with its place, its value, the
// rule and what to write instead:
//
//	scenarios/x.yaml:12:15: within: "15 mins" is not a duration: a number and a unit (s, m, h), e.g. "15m"
//
// # Names and values
//
// An object is named by kind and name, "machineosconfig layered", or by kind, namespace and name, "pod default/web-*". The
// kind may be written in any case, in the plural or short: MachineOSConfig, machineosconfigs, mosc. A name without a
// namespace means the one where the layering controllers keep such objects: openshift-machine-config-operator for build
// pods, Jobs, Secrets and ConfigMaps, openshift-machine-api for Machines and MachineSets, default for workloads, any for
// events.
//
// In a glob * stands for any characters and ? for one; nothing else is special. A text that begins with * must be in
// quotes, or YAML takes it for an alias. A duration is a number and a unit (s, m, h): 90s, 15m, 1h30m.
//
// Fields of objects, in patches, matches and where, are checked against the API's types, so that a misspelt field is a
// mistake in the file and not an expectation that is never met.
//
// # Time
//
// Steps follow each other. The actions of a step are performed at once, in the order of the file; then the step waits
// until expect, in order and settles are met, at most for within; then for prolongs it. The rules of never and always
// are judged from the step's first action to its end. Nothing is polled: each revision of the cluster is looked at.
//
// # Releases
//
// The product behaves differently from release to release. What holds only for some of them says so, and is left out
// for the others; everything else holds for all.
//
//	steps:
//	  - the build fails:
//	      apply: fixtures/broken.yaml
//	      expect:
//	        - machineosbuild layered-*: {condition: Failed}
//	        - {since: "4.20", machineconfigpool layered: {condition: ImageBuildDegraded}}
//	        - until: "4.19"
//	          machineconfigpool layered: {condition: Degraded}
//	          pods build-*: {count: 1}
//	      never:
//	        - a node is touched: {since: "4.19", node *: {where: "has(object.spec.unschedulable)"}}
//
// since and until stand beside expectations, in a step (which is then left out for other releases, with its actions) or
// in the scenario (which is then skipped).
//
// # What the language does not have
//
// No loops, no conditions, no variables but those of variants, no waiting for wall time, no access to files outside the
// repository's own, no way to ask for an action to be refused. A scenario that needs more is two scenarios, or a test in Go.
//
// # Words
//
// What `layersim explain` prints of each word.
//
// # A scenario
//
// always (a scenario): rules that each revision of the whole run must meet
//
//	always: [NAME OF THE RULE: EXPECTATION, ...]
//
// See always of a step.
//
// For example:
//
//	always:
//	  - the control plane is left alone: {machineconfigpool master: {updated: 3}}
//
// area (a scenario): the part of the product, for lists
//
//	area: WORD
//
// For example:
//
//	area: build
//
// cluster (a scenario): the cluster to begin with
//
//	cluster: NAME
//	cluster: {like: NAME, FIELDS OF A CLUSTER}
//
// NAME is the file fixtures/clusters/NAME.yaml. Changes are merged into it, field by field; null removes a
// named part. Lists replace, except objects, which are added.
//
// For example:
//
//	cluster: {like: two-pools, pools: {layered: {maxUnavailable: 2}}, nodes: {layered: {count: 5}}}
//
// kind (a scenario): says that the document is a scenario
//
//	kind: Scenario
//
// For example:
//
//	kind: Scenario
//
// name (a scenario): the scenario's name, unique in the library
//
//	name: NAME
//
// Lower-case letters, digits and -, a letter first.
//
// For example:
//
//	name: build-failure-three-retries
//
// needs (a scenario): capabilities that the cluster must have; without one the scenario is skipped
//
//	needs: WORD or [WORD, ...]
//
// For example:
//
//	needs: [virtual-time]
//
// never (a scenario): rules that no revision of the whole run may meet
//
//	never: [NAME OF THE RULE: EXPECTATION, ...]
//
// See never of a step.
//
// For example:
//
//	never:
//	  - a build is interrupted: {machineosbuild *: {condition: Interrupted}}
//
// seed (a scenario): the seed that the scenario runs with, instead of the run's
//
//	seed: NUMBER
//
// For example:
//
//	seed: 42
//
// shows (a scenario): one sentence: what a reader learns when it passes
//
//	shows: TEXT
//
// For example:
//
//	shows: a build that keeps failing is retried three times and then reported
//
// since (a scenario): the first release that the scenario holds for; for older ones it is skipped
//
//	since: RELEASE
//
// RELEASE is one of 4.18, 4.19, 4.20, 4.21, 4.22, main, and is itself included.
//
// For example:
//
//	since: "4.20"
//
// source (a scenario): where the behaviour is written down
//
//	source: {WORD: TEXT or [TEXT, ...], ...}
//
// For example:
//
//	source: {seed: In the case of a build failure, upstream: TestGracefulBuildFailureRecovery}
//
// steps (a scenario): what happens, step after step
//
//	steps: [NAME OF THE STEP: {ACTIONS AND FIELDS}, ...]
//
// A step begins when the one before it ended. Its actions are performed at once, in the order of the file;
// then it waits for its expectations.
//
// For example:
//
//	steps:
//	  - ask for an image: {apply: fixtures/layered.yaml}
//	  - it rolls out: {within: 1h, expect: {machineconfigpool layered: {updated: 2}}}
//
// until (a scenario): the last release that the scenario holds for; for newer ones it is skipped
//
//	until: RELEASE
//
// RELEASE is one of 4.18, 4.19, 4.20, 4.21, 4.22, main, and is itself included.
//
// For example:
//
//	since: "4.19"
//	until: "4.20"
//
// variants (a scenario): one file, several scenarios: name/variant with variables set
//
//	variants: {NAME: {VARIABLE: VALUE, ...}, ...}
//
// $(VARIABLE) is replaced in all texts, keys too; a value that is nothing but $(VARIABLE) takes the variable's
// type. All variants set the same variables. $$(X) stands for the text $(X).
//
// For example:
//
//	variants: {once: {failures: 1}, twice: {failures: 2}}
//
// # A step
//
// always (a step): rules that each revision from the step's begin to its end must meet
//
//	always: [NAME OF THE RULE: EXPECTATION, ...]
//
// Each revision of the cluster is judged, no state is too short to be seen. Only expectations about a state can be
// rules here: objects, machine and true. With count or all the objects are judged together; without, each object
// of that name must meet the checks whenever it changes.
//
// For example:
//
//	always:
//	  - the good image stays: {machineosconfig layered: {matches: {status: {currentImagePullSpec: "*@sha256:*"}}}}
//
// ever (a step): what must have happened, counted over the whole run so far
//
//	ever: [EXPECTATION, ...]
//
// Each object counts once, also when it is gone, if it met the checks in any of its revisions. registry, log and
// boots count from the run's begin. Judged when the step's other expectations are met.
//
// For example:
//
//	ever: [{pods build-layered-*: {count: 4, phase: Failed, apart: [10s, 20s, 40s]}}]
//
// expect (a step): what must hold, all of it at one instant
//
//	expect: EXPECTATION or [EXPECTATION, ...]
//
// The first instant after the step's actions at which all hold ends the waiting; see within. If all of it held
// before a step did anything, and the step has neither in order nor settles, the step shows nothing and fails.
//
// For example:
//
//	expect:
//	  - machineosbuild layered-*: {condition: Succeeded}
//	  - machineconfigpool layered: {updated: 2}
//
// for (a step): prolongs the step by a time after its expectations are met
//
//	for: DURATION
//
// never and always go on. To show that nothing happens, for is the only way.
//
// For example:
//
//	for: 10m
//	never:
//	  - a build starts: {jobs *: {}}
//
// in order (a step): what must hold one after the other
//
//	in order: [EXPECTATION, ...]
//
// Each at an instant not before that of the one before it; expect begins anew from the step's begin.
//
// For example:
//
//	in order:
//	  - machineosbuild layered-*: {condition: Prepared}
//	  - machineosbuild layered-*: {condition: Building}
//	  - machineosbuild layered-*: {condition: Succeeded}
//
// never (a step): rules that no revision from the step's begin to its end may meet
//
//	never: [NAME OF THE RULE: EXPECTATION, ...]
//
// Each revision of the cluster is judged, no state is too short to be seen. With count or all the objects are judged
// together; without, no object of that name may meet the checks when it changes. where may speak of oldObject, the
// state before the revision (null when the object is new). machine and boots speak of all nodes that match; name
// one to speak of it alone.
//
// For example:
//
//	never:
//	  - a node is drained: {node *: {where: "has(object.spec.unschedulable)"}}
//	for: 10m
//
// settles (a step): what must hold when the cluster has come to rest
//
//	settles: EXPECTATION or [EXPECTATION, ...]
//
// At rest nothing is left to do but heartbeats and timers that find nothing to do.
//
// For example:
//
//	settles: {machineconfigpool layered: {updated: 2, degraded: 0}}
//
// since (a step): the first release that the step holds for; for older ones it is left out
//
//	since: RELEASE
//
// The step's actions are left out, too: to leave out only what it expects, write since and until beside the
// expectations.
// RELEASE is one of 4.18, 4.19, 4.20, 4.21, 4.22, main, and is itself included.
//
// For example:
//
//	since: "4.20"
//	annotate: {machineosconfig layered: {machineconfiguration.openshift.io/rebuild: ""}}
//
// until (a step): the last release that the step holds for; for newer ones it is left out
//
//	until: RELEASE
//
// See since.
//
// For example:
//
//	until: "4.19"
//	delete: machineosconfig layered
//
// within (a step): how long the step may wait for expect, in order and settles
//
//	within: DURATION
//
// A number and a unit (s, m, h). Without it 2h.
//
// For example:
//
//	within: 15m
//	expect: {machineosbuild layered-*: {condition: Failed}}
//
// # Actions
//
// annotate (actions): sets or removes annotations of objects
//
//	annotate: {"KIND NAME": {KEY: VALUE or null, ...}, ...}
//
// NAME may be a glob: all objects that match it.
//
// For example:
//
//	annotate: {machineosconfig layered: {machineconfiguration.openshift.io/rebuild: ""}}
//
// apply (actions): creates objects, or changes them to what is written
//
//	apply: FILE, an object, or a list of both
//
// FILE is looked up in the folder of the scenario, in each folder above it, and among the fixtures of the
// program. It may hold several documents. Namespaces default as they do in names.
//
// For example:
//
//	apply: fixtures/layered.yaml
//
// cordon (actions): marks nodes unschedulable, as an administrator does
//
//	cordon: NODE or [NODE, ...]
//
// For example:
//
//	cordon: layered-1
//
// crash (actions): kills a component before or after one of its next writes
//
//	crash: {component: NAME, when: before or after, write: N, verb: VERB, kind: KIND}
//
// The N-th write from now (default 1), counting only writes with this verb and kind where they are given; after
// (the default) means that the server has done it. The component comes back with empty memory. Components are
// build-pods, kube, machine-api, machine-config-controller, machine-config-operator, machine-os-builder, node-agents.
//
// For example:
//
//	crash: {component: machine-os-builder, when: after, write: 1, verb: create, kind: job}
//
// create (actions): creates objects that must not exist yet
//
//	create: FILE, an object, or a list of both
//
// For example:
//
//	create: {apiVersion: v1, kind: ConfigMap, metadata: {name: note, namespace: default}, data: {a: b}}
//
// delete (actions): deletes objects
//
//	delete: "KIND NAME" or ["KIND NAME", ...]
//
// NAME may be a glob: all objects that match it. That nothing matches is an error of the run.
//
// For example:
//
//	delete: machineosconfig layered
//
// evict (actions): evicts pods
//
//	evict: NAME or [NAME, ...]
//
// NAME may be a glob: all pods that match it, in whatever namespace. That nothing matches is an error of the run, and
// so is an eviction that a disruption budget doesn't allow.
//
// For example:
//
//	evict: app-*
//
// fault (actions): arms an aimed fault
//
//	fault: {name: NAME, on: PLACE, do: WHAT, skip: N, times: N, duration: DURATION, AIM} or a list of them
//
// See api, build, host, node, registry and repository for what can happen there and how to aim it; an aim that is
// left out fits everything. The first skip occurrences pass; the fault ends after times occurrences, after
// duration (of a delay: duration is its length), or when it is healed. A fault that never fires fails the
// scenario. The name is for heal; without one it is PLACE-WHAT.
//
// For example:
//
//	fault: {name: repo-down, on: repository, do: unreachable, times: 3}
//
// heal (actions): ends faults
//
//	heal: NAME or PLACE or [NAME, ...]
//
// PLACE ends all faults there.
//
// For example:
//
//	fault: {on: repository, do: unreachable}
//	heal: repository
//
// image (actions): deletes an image from the registry, or limits the space of a repository
//
//	image: {delete: REFERENCE or build:NAME}
//	image: {quota: {REPOSITORY: BYTES or null, ...}}
//
// build:NAME is the image of the MachineOSBuilds that match the glob. A push above the quota is refused.
//
// For example:
//
//	image: {quota: {openshift/os-image: 3Gi}}
//
// label (actions): sets or removes labels of objects
//
//	label: {"KIND NAME": {KEY: VALUE or null, ...}, ...}
//
// NAME may be a glob: all objects that match it. null removes, "" is the empty value.
//
// For example:
//
//	label: {node layered-1: {node-role.kubernetes.io/layered: null}}
//
// patch (actions): changes fields of objects by a JSON merge patch
//
//	patch: {"KIND NAME": MERGE PATCH, ...}
//
// Mappings are merged, null removes, lists are replaced as a whole. NAME may be a glob.
//
// For example:
//
//	patch: {machineconfigpool layered: {spec: {maxUnavailable: 2}}}
//
// pause (actions): pauses machine config pools
//
//	pause: POOL or [POOL, ...]
//
// For example:
//
//	pause: layered
//
// restart (actions): ends components and starts them at once, with empty memory
//
//	restart: COMPONENT or [COMPONENT, ...]
//
// See crash for the components.
//
// For example:
//
//	restart: machine-os-builder
//
// restore (actions): takes back a revoke: the account's credentials are good again
//
//	restore: ACCOUNT or [ACCOUNT, ...]
//
// For example:
//
//	restore: pusher
//
// revoke (actions): makes the registry refuse an account
//
//	revoke: ACCOUNT or [ACCOUNT, ...]
//
// Until restore or rotate. No Secret changes by it.
//
// For example:
//
//	revoke: pusher
//
// rotate (actions): gives an account a new password in the registry
//
//	rotate: ACCOUNT or [ACCOUNT, ...]
//
// The old password is refused from now on. No Secret changes by it: use secret, before or after. To have a
// time in which both are good, move the Secret to a second account and then revoke the first.
//
// For example:
//
//	rotate: pusher
//	secret: {builder-dockercfg-7lzwl: pusher}
//
// scale (actions): sets the replicas of machine sets and deployments
//
//	scale: {"KIND NAME": N, ...}
//
// For example:
//
//	scale: {deployment default/web: 5}
//
// secret (actions): writes an account's present credentials into Secrets
//
//	secret: {NAME or NAMESPACE/NAME: ACCOUNT or {account: ACCOUNT, host: HOST}, ...}
//
// A Secret that exists keeps its format; a new one is kubernetes.io/dockerconfigjson. account "" stands for
// credentials that no registry knows. host defaults to the internal registry.
//
// For example:
//
//	secret: {builder-dockercfg-7lzwl: {account: pusher}}
//
// start (actions): starts stopped components
//
//	start: COMPONENT or [COMPONENT, ...]
//
// See crash for the components.
//
// For example:
//
//	start: machine-os-builder
//
// stop (actions): stops components
//
//	stop: COMPONENT or [COMPONENT, ...]
//
// Until start or restart. See crash for the components.
//
// For example:
//
//	stop: machine-os-builder
//
// uncordon (actions): marks nodes schedulable
//
//	uncordon: NODE or [NODE, ...]
//
// For example:
//
//	uncordon: layered-1
//
// unpause (actions): lets machine config pools go on
//
//	unpause: POOL or [POOL, ...]
//
// For example:
//
//	unpause: layered
//
// wait (actions): lets time pass before the next action
//
//	wait: DURATION
//
// To wait for something, expect it. To show that nothing happens, use for with a rule.
//
// For example:
//
//	wait: 10m
//
// write (actions): changes files of nodes behind the machine-config-daemon's back
//
//	write: {NODE: {PATH: CONTENT or null, ...}, ...}
//
// null restores the file.
//
// For example:
//
//	write: {layered-1: {/etc/motd: by hand}}
//
// # Expectations
//
// KIND (expectations): objects of a kind that meet all checks
//
//	"KIND NAME": {CHECKS}
//	"KIND NAMESPACE/NAME": {CHECKS}
//
// KIND is a kind in any case, its plural or short name. NAME and NAMESPACE are globs: * any characters, ? one.
// At least one object must meet the checks; see count, all and exists. Without checks it must exist. Objects
// without a namespace are those of the kind's usual one, see explain KIND.
//
// For example:
//
//	machineosbuild layered-*: {condition: Failed}
//
// boots (expectations): how often nodes booted since the step's begin
//
//	boots: {NODE: N, ...}
//
// NODE may be a glob: each node that matches booted exactly N times. Counted from the machines, not from annotations.
//
// For example:
//
//	boots: {layered-*: 1}
//
// log (expectations): a container whose log holds a text
//
//	"log POD": TEXT
//	"log POD": {text: TEXT, container: NAME, count: N}
//
// POD is a glob. At least one log, or exactly count. The log is known when the container has ended.
//
// For example:
//
//	log build-layered-*: {text: Cannot download, container: image-build, count: 4}
//
// machine (expectations): the machine below a Node, as its last boot left it
//
//	"machine NODE": {booted: layered, base or IMAGE, packages: [NAME, ...], without: [NAME, ...],
//	    rpm-ostree status: [LINE, ...], count: N}
//
// NODE is a glob, and each node that matches must meet it, or with count exactly N of them. booted: layered is an image that was built on the
// cluster, which the image itself tells. Lines may hold *. For objects of the kind Machine write machines.
//
// For example:
//
//	machine layered-*: {booted: layered, packages: [tree], rpm-ostree status: ["* ostree-unverified-registry:*@sha256:*"]}
//
// registry (expectations): requests that the registry answered since the step's begin
//
//	registry: {method: METHOD, path: PATH, account: ACCOUNT, caller: CALLER, status: N, count: N}
//
// path, account and caller are globs; path is what follows /v2/. At least one request, or exactly count.
//
// For example:
//
//	registry: {method: DELETE, path: openshift/os-image/manifests/*, status: 202, count: 0}
//
// since (expectations): the first release that the expectations beside it hold for
//
//	{since: RELEASE, EXPECTATION, ...}
//	NAME OF THE RULE: {since: RELEASE, EXPECTATION}
//
// For older releases they are left out. since holds for all expectations of its mapping, in a list for those of the
// one item. If a step acts, what is left of its expect must not have held before.
// RELEASE is one of 4.18, 4.19, 4.20, 4.21, 4.22, main, and is itself included.
//
// For example:
//
//	{since: "4.20", machineosbuild layered-*: {condition: Failed}}
//
// true (expectations): a CEL expression over the whole cluster
//
//	true: EXPRESSION
//
// list("KIND") are all objects of a kind, get("KIND", "NAME") is one, now is the time, and text.glob("a*") matches
// a glob. An expression that fails, because an object or a field is missing, is not true.
//
// For example:
//
//	true: list("node").filter(n, n.metadata.name.glob("layered-*")).all(n, !has(n.spec.unschedulable))
//
// until (expectations): the last release that the expectations beside it hold for
//
//	{until: RELEASE, EXPECTATION, ...}
//	NAME OF THE RULE: {until: RELEASE, EXPECTATION}
//
// See since. With both the expectations hold from the one to the other.
//
// For example:
//
//	{since: "4.19", until: "4.20", boots: {layered-*: 2}}
//
// # Checks of objects
//
// all (checks of objects): each object of that name must meet the checks, not just one
//
//	all: true
//
// For example:
//
//	nodes layered-*: {all: true, condition: Ready}
//
// apart (checks of objects): below ever: the least times between one match and the next
//
//	apart: [DURATION, ...]
//
// One less than count.
//
// For example:
//
//	pods build-layered-*: {count: 4, apart: [10s, 20s, 40s]}
//
// columns (checks of objects): cells of the row that oc get prints, by their headers
//
//	columns: {HEADER: TEXT, ...}
//
// TEXT may hold *.
//
// For example:
//
//	machineconfigpool layered: {columns: {UPDATED: "False", READYMACHINECOUNT: 0}}
//
// condition (checks of objects): conditions that the object must have, all of them
//
//	condition: TYPE, TYPE=STATUS, {type: TYPE, status: STATUS, reason: TEXT, message: TEXT} or a list of them
//
// The status is True where none is given. A condition that isn't there is False, unless a reason or a message is
// asked for. reason and message may hold *.
//
// For example:
//
//	machineconfigpool layered: {condition: [Updated=False, {type: ImageBuildDegraded, reason: BuildFailed}]}
//
// count (checks of objects): exactly so many objects must meet the checks
//
//	count: N
//
// For example:
//
//	machineosbuild layered-*: {count: 1, condition: Building}
//
// degraded (checks of objects): a pool's status.degradedMachineCount
//
//	degraded: N
//
// For example:
//
//	machineconfigpool layered: {degraded: 1}
//
// exists (checks of objects): false: no object meets the other checks (count: 0)
//
//	exists: false
//
// For example:
//
//	machineosbuild layered-*: {exists: false}
//
// machines (checks of objects): a pool's status.machineCount
//
//	machines: N
//
// For example:
//
//	machineconfigpool layered: {machines: 3}
//
// matches (checks of objects): a part of the object
//
//	matches: {FIELDS}
//
// Mappings are parts too, each item of a list must fit one of the object's, texts may hold *, null means absent.
//
// For example:
//
//	machineosconfig layered: {matches: {status: {currentImagePullSpec: "*@sha256:*"}}}
//
// phase (checks of objects): status.phase of a pod, machine or namespace
//
//	phase: PHASE
//
// For example:
//
//	pods build-layered-*: {count: 4, phase: Failed}
//
// ready (checks of objects): a pool's status.readyMachineCount
//
//	ready: N
//
// For example:
//
//	machineconfigpool layered: {ready: 2}
//
// row (checks of objects): the row that oc get prints, cell by cell from the left
//
//	row: CELLS WITH BLANKS BETWEEN THEM
//	row: [CELL, ...]
//
// Cells may hold *, and cells on the right may be left out. The list can hold empty cells.
//
// For example:
//
//	machineconfigpool layered: {row: layered rendered-layered-* False True False 2 0 0 0}
//
// unavailable (checks of objects): a pool's status.unavailableMachineCount
//
//	unavailable: N
//
// For example:
//
//	machineconfigpool layered: {unavailable: 1}
//
// updated (checks of objects): a pool's status.updatedMachineCount
//
//	updated: N
//
// For example:
//
//	machineconfigpool layered: {updated: 2}
//
// where (checks of objects): a CEL expression over object, in rules also oldObject
//
//	where: EXPRESSION
//
// Fields are checked against the API. An expression that fails, because a field is missing, is not met: ask
// has(object.x) first. now is the time, and text.glob("a*") matches a glob.
//
// For example:
//
//	node layered-*: {where: "'machineconfiguration.openshift.io/desiredImage' in object.metadata.annotations"}
//
// # Faults
//
// api (faults): requests to the API server
//
//	fault: {on: api, do: conflict | delay | error | lost-response | timeout, caller: GLOB, verb: VERB, kind: KIND, object: GLOB, when: before or after, ...}
//
// What happens:
//
//	conflict: the request is refused: somebody else changed the object
//	delay: the request takes duration longer
//	error: the server answers 500 and does nothing
//	lost-response: the request is done, but the caller gets an error
//	timeout: the caller gets a timeout, and nothing is done
//
// For example:
//
//	fault: {on: api, do: conflict, caller: machine-os-builder, verb: update, kind: machineosbuild, times: 2}
//
// build (faults): build pods, by the MachineOSBuild that they build
//
//	fault: {on: build, do: fail | hang | kill, build: GLOB, phase: PHASE, ...}
//
// What happens:
//
//	fail: the phase fails
//	hang: the phase never ends
//	kill: the pod is killed in the phase
//
// Phases: pull, build, push, digest.
//
// For example:
//
//	fault: {on: build, do: kill, build: layered-*, phase: push, times: 1}
//
// host (faults): what the cluster itself runs on, where it is one of containers: the scenario needs host
//
//	fault: {on: host, do: api-server-restart | image-missing | pause, ...}
//
// What happens:
//
//	api-server-restart: the API server is killed, and the kubelet starts it again
//	image-missing: the image of build pods is not there, and can't be pulled
//	pause: the machine with all that runs on it, API server included, stands still
//
// For example:
//
//	fault: {on: host, do: pause, duration: 30m}
//
// node (faults): the machine below a Node, while it is updated
//
//	fault: {on: node, do: fail | hang | power-off, node: GLOB, phase: PHASE, ...}
//
// What happens:
//
//	fail: the phase fails
//	hang: the phase never ends
//	power-off: the machine goes dark and comes back when the fault is healed
//
// Phases: drain, pull, stage, reboot, boot, uncordon, done.
//
// For example:
//
//	fault: {on: node, do: fail, node: layered-1, phase: pull, times: 3}
//
// registry (faults): requests to the registry
//
//	fault: {on: registry, do: error | forbidden | not-found | quota | unauthorized | unreachable, caller: GLOB, method: METHOD, path: GLOB, ...}
//
// What happens:
//
//	error: it answers 500
//	forbidden: it answers 403
//	not-found: it answers 404
//	quota: it answers 413: no space is left
//	unauthorized: it answers 401
//	unreachable: it doesn't answer
//
// For example:
//
//	fault: {on: registry, do: unauthorized, caller: node/*, method: GET, path: openshift/os-image/*}
//
// repository (faults): the package repositories that builds install from
//
//	fault: {on: repository, do: missing-package | unreachable, repository: GLOB, package: NAME, ...}
//
// What happens:
//
//	missing-package: the repositories don't have package
//	unreachable: no repository answers
//
// For example:
//
//	fault: {on: repository, do: missing-package, package: tree}
//
// # A cluster
//
// accounts (a cluster): accounts of the registry and what they may pull and push
//
//	accounts: {NAME: {pull: [REPOSITORY, ...], push: [REPOSITORY, ...]}, ...}
//
// A repository may end in *.
//
// For example:
//
//	accounts: {pusher: {pull: [openshift/os-image], push: [openshift/os-image]}}
//
// builders (a cluster): replicas of machine-os-builder
//
//	builders: N
//
// Default 1. One of them leads.
//
// For example:
//
//	builders: 2
//
// controllers (a cluster): replicas of machine-config-controller
//
//	controllers: N
//
// Default 1. One of them leads.
//
// For example:
//
//	controllers: 2
//
// machineSets (a cluster): machine sets with their start size
//
//	machineSets: {NAME: {replicas: N, roles: [ROLE, ...], zone: ZONE}, ...}
//
// Their nodes are converged at the start, too, and are named NAME-...
//
// For example:
//
//	machineSets: {layered: {replicas: 3, roles: [worker, layered]}}
//
// nodes (a cluster): nodes, converged at the start
//
//	nodes: {NAME: {count: N, roles: [ROLE, ...], zone: ZONE}, ...}
//
// With count they are NAME-1 to NAME-N, without it there is one, NAME. roles default to worker.
//
// For example:
//
//	nodes: {layered: {count: 2, roles: [worker, layered]}}
//
// objects (a cluster): further objects, created last
//
//	objects: FILE, an object, or a list of both
//
// See apply.
//
// For example:
//
//	objects: {apiVersion: v1, kind: Namespace, metadata: {name: shop}}
//
// pools (a cluster): machine config pools; master and worker always exist
//
//	pools: {NAME: {maxUnavailable: N or PERCENT, paused: BOOL}, ...}
//
// maxUnavailable defaults to 1.
//
// For example:
//
//	pools: {layered: {maxUnavailable: 50%}}
//
// secrets (a cluster): Secrets that hold credentials of accounts
//
//	secrets: {NAME or NAMESPACE/NAME: ACCOUNT or {account: ACCOUNT, host: HOST}, ...}
//
// See the action secret.
//
// For example:
//
//	accounts: {pusher: {push: ["*"]}}
//	secrets: {builder-dockercfg-7lzwl: pusher}
//
// workloads (a cluster): Deployments in namespace default, to have something to drain
//
//	workloads: {NAME: {replicas: N, minAvailable: N or PERCENT, nodeSelector: {LABEL: VALUE}}, ...}
//
// minAvailable makes a PodDisruptionBudget.
//
// For example:
//
//	workloads: {web: {replicas: 3, minAvailable: 2}}
package scenario
