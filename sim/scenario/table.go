package scenario

import "strings"

// words is the language: sections in the order of the manual, words by name.
var words = slicesOf(
	scenarioWords, stepWords, actionWords, expectationWords, checkWords, faultWords(), clusterWords,
)

func slicesOf(lists ...[]Word) []Word {
	var all []Word
	for _, l := range lists {
		all = append(all, l...)
	}
	return all
}

// releaseNotes are said of each since.
var releaseNotes = "RELEASE is one of " + strings.Join(Releases, ", ") + ", and is itself included."

var scenarioWords = []Word{
	{Name: "always", Section: SectionScenario, Short: "rules that each revision of the whole run must meet",
		Grammar: "always: [NAME OF THE RULE: EXPECTATION, ...]",
		Notes:   "See always of a step.",
		Example: "always:\n  - the control plane is left alone: {machineconfigpool master: {updated: 3}}"},
	{Name: "area", Section: SectionScenario, Short: "the part of the product, for lists",
		Grammar: "area: WORD", Example: "area: build"},
	{Name: "cluster", Section: SectionScenario, Short: "the cluster to begin with",
		Grammar: "cluster: NAME\ncluster: {like: NAME, FIELDS OF A CLUSTER}",
		Notes: "NAME is the file fixtures/clusters/NAME.yaml. Changes are merged into it, field by field; null removes a\n" +
			"named part. Lists replace, except objects, which are added.",
		Example: "cluster: {like: two-pools, pools: {layered: {maxUnavailable: 2}}, nodes: {layered: {count: 5}}}"},
	{Name: "kind", Section: SectionScenario, Short: "says that the document is a scenario",
		Grammar: "kind: Scenario", Example: "kind: Scenario"},
	{Name: "name", Section: SectionScenario, Short: "the scenario's name, unique in the library",
		Grammar: "name: NAME", Notes: "Lower-case letters, digits and -, a letter first.", Example: "name: build-failure-three-retries"},
	{Name: "needs", Section: SectionScenario, Short: "capabilities that the cluster must have; without one the scenario is skipped",
		Grammar: "needs: WORD or [WORD, ...]", Example: "needs: [virtual-time]"},
	{Name: "never", Section: SectionScenario, Short: "rules that no revision of the whole run may meet",
		Grammar: "never: [NAME OF THE RULE: EXPECTATION, ...]",
		Notes:   "See never of a step.",
		Example: "never:\n  - a build is interrupted: {machineosbuild *: {condition: Interrupted}}"},
	{Name: "seed", Section: SectionScenario, Short: "the seed that the scenario runs with, instead of the run's",
		Grammar: "seed: NUMBER", Example: "seed: 42"},
	{Name: "shows", Section: SectionScenario, Short: "one sentence: what a reader learns when it passes",
		Grammar: "shows: TEXT", Example: "shows: a build that keeps failing is retried three times and then reported"},
	{Name: inSince, Section: SectionScenario, Short: "the first release that the scenario holds for; for older ones it is skipped",
		Grammar: "since: RELEASE", Notes: releaseNotes, Example: "since: \"4.20\""},
	{Name: "source", Section: SectionScenario, Short: "where the behaviour is written down",
		Grammar: "source: {WORD: TEXT or [TEXT, ...], ...}",
		Example: "source: {seed: In the case of a build failure, upstream: TestGracefulBuildFailureRecovery}"},
	{Name: "steps", Section: SectionScenario, Short: "what happens, step after step",
		Grammar: "steps: [NAME OF THE STEP: {ACTIONS AND FIELDS}, ...]",
		Notes: "A step begins when the one before it ended. Its actions are performed at once, in the order of the file;\n" +
			"then it waits for its expectations.",
		Example: "steps:\n  - ask for an image: {apply: fixtures/layered.yaml}\n  - it rolls out: {within: 1h, expect: {machineconfigpool layered: {updated: 2}}}"},
	{Name: inUntil, Section: SectionScenario, Short: "the last release that the scenario holds for; for newer ones it is skipped",
		Grammar: "until: RELEASE", Notes: releaseNotes, Example: "since: \"4.19\"\nuntil: \"4.20\""},
	{Name: "variants", Section: SectionScenario, Short: "one file, several scenarios: name/variant with variables set",
		Grammar: "variants: {NAME: {VARIABLE: VALUE, ...}, ...}",
		Notes: "$(VARIABLE) is replaced in all texts, keys too; a value that is nothing but $(VARIABLE) takes the variable's\n" +
			"type. All variants set the same variables. $$(X) stands for the text $(X).",
		Example: "variants: {once: {failures: 1}, twice: {failures: 2}}"},
}

var stepWords = []Word{
	{Name: "always", Section: SectionStep, Short: "rules that each revision from the step's begin to its end must meet",
		Grammar: "always: [NAME OF THE RULE: EXPECTATION, ...]",
		Notes: "Each revision of the cluster is judged, no state is too short to be seen. Only expectations about a state can be\n" +
			"rules here: objects, machine and true. With count or all the objects are judged together; without, each object\n" +
			"of that name must meet the checks whenever it changes.",
		Example: "always:\n  - the good image stays: {machineosconfig layered: {matches: {status: {currentImagePullSpec: \"*@sha256:*\"}}}}"},
	{Name: "ever", Section: SectionStep, Short: "what must have happened, counted over the whole run so far",
		Grammar: "ever: [EXPECTATION, ...]",
		Notes: "Each object counts once, also when it is gone, if it met the checks in any of its revisions. registry, log and\n" +
			"boots count from the run's begin. Judged when the step's other expectations are met.",
		Example: "ever: [{pods build-layered-*: {count: 4, phase: Failed, apart: [10s, 20s, 40s]}}]"},
	{Name: "expect", Section: SectionStep, Short: "what must hold, all of it at one instant",
		Grammar: "expect: EXPECTATION or [EXPECTATION, ...]",
		Notes: "The first instant after the step's actions at which all hold ends the waiting; see within. If all of it held\n" +
			"before a step did anything, and the step has neither in order nor settles, the step shows nothing and fails.",
		Example: "expect:\n  - machineosbuild layered-*: {condition: Succeeded}\n  - machineconfigpool layered: {updated: 2}"},
	{Name: "for", Section: SectionStep, Short: "prolongs the step by a time after its expectations are met",
		Grammar: "for: DURATION", Notes: "never and always go on. To show that nothing happens, for is the only way.",
		Example: "for: 10m\nnever:\n  - a build starts: {jobs *: {}}"},
	{Name: "in order", Section: SectionStep, Short: "what must hold one after the other",
		Grammar: "in order: [EXPECTATION, ...]",
		Notes:   "Each at an instant not before that of the one before it; expect begins anew from the step's begin.",
		Example: "in order:\n  - machineosbuild layered-*: {condition: Prepared}\n  - machineosbuild layered-*: {condition: Building}\n  - machineosbuild layered-*: {condition: Succeeded}"},
	{Name: "never", Section: SectionStep, Short: "rules that no revision from the step's begin to its end may meet",
		Grammar: "never: [NAME OF THE RULE: EXPECTATION, ...]",
		Notes: "Each revision of the cluster is judged, no state is too short to be seen. With count or all the objects are judged\n" +
			"together; without, no object of that name may meet the checks when it changes. where may speak of oldObject, the\n" +
			"state before the revision (null when the object is new). machine and boots speak of all nodes that match; name\n" +
			"one to speak of it alone.",
		Example: "never:\n  - a node is drained: {node *: {where: \"has(object.spec.unschedulable)\"}}\nfor: 10m"},
	{Name: "settles", Section: SectionStep, Short: "what must hold when the cluster has come to rest",
		Grammar: "settles: EXPECTATION or [EXPECTATION, ...]",
		Notes:   "At rest nothing is left to do but heartbeats and timers that find nothing to do.",
		Example: "settles: {machineconfigpool layered: {updated: 2, degraded: 0}}"},
	{Name: inSince, Section: SectionStep, Short: "the first release that the step holds for; for older ones it is left out",
		Grammar: "since: RELEASE",
		Notes: "The step's actions are left out, too: to leave out only what it expects, write since and until beside the\n" +
			"expectations.\n" + releaseNotes,
		Example: "since: \"4.20\"\nannotate: {machineosconfig layered: {machineconfiguration.openshift.io/rebuild: \"\"}}"},
	{Name: inUntil, Section: SectionStep, Short: "the last release that the step holds for; for newer ones it is left out",
		Grammar: "until: RELEASE", Notes: "See since.",
		Example: "until: \"4.19\"\ndelete: machineosconfig layered"},
	{Name: "within", Section: SectionStep, Short: "how long the step may wait for expect, in order and settles",
		Grammar: "within: DURATION", Notes: "A number and a unit (s, m, h). Without it 2h.",
		Example: "within: 15m\nexpect: {machineosbuild layered-*: {condition: Failed}}"},
}

var actionWords = []Word{
	{Name: "annotate", Section: SectionAction, Short: "sets or removes annotations of objects",
		Grammar: "annotate: {\"KIND NAME\": {KEY: VALUE or null, ...}, ...}",
		Notes:   "NAME may be a glob: all objects that match it.",
		Example: "annotate: {machineosconfig layered: {machineconfiguration.openshift.io/rebuild: \"\"}}",
		act:     actMeta("annotate", "annotations")},
	{Name: "apply", Section: SectionAction, Short: "creates objects, or changes them to what is written",
		Grammar: "apply: FILE, an object, or a list of both",
		Notes: "FILE is looked up in the folder of the scenario, in each folder above it, and among the fixtures of the\n" +
			"program. It may hold several documents. Namespaces default as they do in names.",
		Example: "apply: fixtures/layered.yaml", act: actApply("apply")},
	{Name: "cordon", Section: SectionAction, Short: "marks nodes unschedulable, as an administrator does",
		Grammar: "cordon: NODE or [NODE, ...]", Example: "cordon: layered-1",
		act: actNames("cordon", "Node", specPatch("unschedulable", true))},
	{Name: "crash", Section: SectionAction, Short: "kills a component before or after one of its next writes",
		Grammar: "crash: {component: NAME, when: before or after, write: N, verb: VERB, kind: KIND}",
		Notes: "The N-th write from now (default 1), counting only writes with this verb and kind where they are given; after\n" +
			"(the default) means that the server has done it. The component comes back with empty memory. Components are\n" +
			strings.Join(Components, ", ") + ".",
		Example: "crash: {component: machine-os-builder, when: after, write: 1, verb: create, kind: job}", act: actCrash},
	{Name: "create", Section: SectionAction, Short: "creates objects that must not exist yet",
		Grammar: "create: FILE, an object, or a list of both",
		Example: "create: {apiVersion: v1, kind: ConfigMap, metadata: {name: note, namespace: default}, data: {a: b}}",
		act:     actApply("create")},
	{Name: "delete", Section: SectionAction, Short: "deletes objects",
		Grammar: "delete: \"KIND NAME\" or [\"KIND NAME\", ...]",
		Notes:   "NAME may be a glob: all objects that match it. That nothing matches is an error of the run.",
		Example: "delete: machineosconfig layered", act: actDelete},
	{Name: "evict", Section: SectionAction, Short: "evicts pods",
		Grammar: "evict: NAME or [NAME, ...]",
		Notes: "NAME may be a glob: all pods that match it, in whatever namespace. That nothing matches is an error of the run, and\n" +
			"so is an eviction that a disruption budget doesn't allow.",
		Example: "evict: app-*", act: actEvict},
	{Name: "fault", Section: SectionAction, Short: "arms an aimed fault",
		Grammar: "fault: {name: NAME, on: PLACE, do: WHAT, skip: N, times: N, duration: DURATION, AIM} or a list of them",
		Notes: "See api, build, host, node, registry and repository for what can happen there and how to aim it; an aim that is\n" +
			"left out fits everything. The first skip occurrences pass; the fault ends after times occurrences, after\n" +
			"duration (of a delay: duration is its length), or when it is healed. A fault that never fires fails the\n" +
			"scenario. The name is for heal; without one it is PLACE-WHAT.",
		Example: "fault: {name: repo-down, on: repository, do: unreachable, times: 3}", act: actFault},
	{Name: "heal", Section: SectionAction, Short: "ends faults",
		Grammar: "heal: NAME or PLACE or [NAME, ...]",
		Notes:   "PLACE ends all faults there.",
		Example: "fault: {on: repository, do: unreachable}\nheal: repository", act: actHeal},
	{Name: "image", Section: SectionAction, Short: "deletes an image from the registry, or limits the space of a repository",
		Grammar: "image: {delete: REFERENCE or build:NAME}\nimage: {quota: {REPOSITORY: BYTES or null, ...}}",
		Notes:   "build:NAME is the image of the MachineOSBuilds that match the glob. A push above the quota is refused.",
		Example: "image: {quota: {openshift/os-image: 3Gi}}", act: actImage},
	{Name: "label", Section: SectionAction, Short: "sets or removes labels of objects",
		Grammar: "label: {\"KIND NAME\": {KEY: VALUE or null, ...}, ...}",
		Notes:   "NAME may be a glob: all objects that match it. null removes, \"\" is the empty value.",
		Example: "label: {node layered-1: {node-role.kubernetes.io/layered: null}}", act: actMeta("label", "labels")},
	{Name: "patch", Section: SectionAction, Short: "changes fields of objects by a JSON merge patch",
		Grammar: "patch: {\"KIND NAME\": MERGE PATCH, ...}",
		Notes:   "Mappings are merged, null removes, lists are replaced as a whole. NAME may be a glob.",
		Example: "patch: {machineconfigpool layered: {spec: {maxUnavailable: 2}}}", act: actPatch},
	{Name: "pause", Section: SectionAction, Short: "pauses machine config pools",
		Grammar: "pause: POOL or [POOL, ...]", Example: "pause: layered",
		act: actNames("pause", "MachineConfigPool", specPatch("paused", true))},
	{Name: "restart", Section: SectionAction, Short: "ends components and starts them at once, with empty memory",
		Grammar: "restart: COMPONENT or [COMPONENT, ...]", Notes: "See crash for the components.",
		Example: "restart: machine-os-builder", act: actComponents("restart")},
	{Name: "restore", Section: SectionAction, Short: "takes back a revoke: the account's credentials are good again",
		Grammar: "restore: ACCOUNT or [ACCOUNT, ...]", Example: "restore: pusher", act: actAccount("restore")},
	{Name: "revoke", Section: SectionAction, Short: "makes the registry refuse an account",
		Grammar: "revoke: ACCOUNT or [ACCOUNT, ...]", Notes: "Until restore or rotate. No Secret changes by it.",
		Example: "revoke: pusher", act: actAccount("revoke")},
	{Name: "rotate", Section: SectionAction, Short: "gives an account a new password in the registry",
		Grammar: "rotate: ACCOUNT or [ACCOUNT, ...]",
		Notes: "The old password is refused from now on. No Secret changes by it: use secret, before or after. To have a\n" +
			"time in which both are good, move the Secret to a second account and then revoke the first.",
		Example: "rotate: pusher\nsecret: {builder-dockercfg-7lzwl: pusher}", act: actAccount("rotate")},
	{Name: "scale", Section: SectionAction, Short: "sets the replicas of machine sets and deployments",
		Grammar: "scale: {\"KIND NAME\": N, ...}", Example: "scale: {deployment default/web: 5}", act: actScale},
	{Name: "secret", Section: SectionAction, Short: "writes an account's present credentials into Secrets",
		Grammar: "secret: {NAME or NAMESPACE/NAME: ACCOUNT or {account: ACCOUNT, host: HOST}, ...}",
		Notes: "A Secret that exists keeps its format; a new one is kubernetes.io/dockerconfigjson. account \"\" stands for\n" +
			"credentials that no registry knows. host defaults to the internal registry.",
		Example: "secret: {builder-dockercfg-7lzwl: {account: pusher}}", act: actSecret},
	{Name: "start", Section: SectionAction, Short: "starts stopped components",
		Grammar: "start: COMPONENT or [COMPONENT, ...]", Notes: "See crash for the components.",
		Example: "start: machine-os-builder", act: actComponents("start")},
	{Name: "stop", Section: SectionAction, Short: "stops components",
		Grammar: "stop: COMPONENT or [COMPONENT, ...]", Notes: "Until start or restart. See crash for the components.",
		Example: "stop: machine-os-builder", act: actComponents("stop")},
	{Name: "uncordon", Section: SectionAction, Short: "marks nodes schedulable",
		Grammar: "uncordon: NODE or [NODE, ...]", Example: "uncordon: layered-1",
		act: actNames("uncordon", "Node", specPatch("unschedulable", nil))},
	{Name: "unpause", Section: SectionAction, Short: "lets machine config pools go on",
		Grammar: "unpause: POOL or [POOL, ...]", Example: "unpause: layered",
		act: actNames("unpause", "MachineConfigPool", specPatch("paused", false))},
	{Name: "wait", Section: SectionAction, Short: "lets time pass before the next action",
		Grammar: "wait: DURATION",
		Notes:   "To wait for something, expect it. To show that nothing happens, use for with a rule.",
		Example: "wait: 10m", act: actWait},
	{Name: "write", Section: SectionAction, Short: "changes files of nodes behind the machine-config-daemon's back",
		Grammar: "write: {NODE: {PATH: CONTENT or null, ...}, ...}", Notes: "null restores the file.",
		Example: "write: {layered-1: {/etc/motd: by hand}}", act: actWrite},
}

var expectationWords = []Word{
	{Name: objectWord, Section: SectionExpectation, Short: "objects of a kind that meet all checks",
		Grammar: "\"KIND NAME\": {CHECKS}\n\"KIND NAMESPACE/NAME\": {CHECKS}",
		Notes: "KIND is a kind in any case, its plural or short name. NAME and NAMESPACE are globs: * any characters, ? one.\n" +
			"At least one object must meet the checks; see count, all and exists. Without checks it must exist. Objects\n" +
			"without a namespace are those of the kind's usual one, see explain KIND.",
		Example: "machineosbuild layered-*: {condition: Failed}"},
	{Name: "boots", Section: SectionExpectation, Short: "how often nodes booted since the step's begin",
		Grammar: "boots: {NODE: N, ...}",
		Notes:   "NODE may be a glob: each node that matches booted exactly N times. Counted from the machines, not from annotations.",
		Example: "boots: {layered-*: 1}", expect: expectBoots},
	{Name: "log", Section: SectionExpectation, Short: "a container whose log holds a text",
		Grammar: "\"log POD\": TEXT\n\"log POD\": {text: TEXT, container: NAME, count: N}",
		Notes:   "POD is a glob. At least one log, or exactly count. The log is known when the container has ended.",
		Example: "log build-layered-*: {text: Cannot download, container: image-build, count: 4}", expect: expectLog, named: true},
	{Name: "machine", Section: SectionExpectation, Short: "the machine below a Node, as its last boot left it",
		Grammar: "\"machine NODE\": {booted: layered, base or IMAGE, packages: [NAME, ...], without: [NAME, ...],\n" +
			"    rpm-ostree status: [LINE, ...], count: N}",
		Notes: "NODE is a glob, and each node that matches must meet it, or with count exactly N of them. booted: layered is an image that was built on the\n" +
			"cluster, which the image itself tells. Lines may hold *. For objects of the kind Machine write machines.",
		Example: "machine layered-*: {booted: layered, packages: [tree], rpm-ostree status: [\"* ostree-unverified-registry:*@sha256:*\"]}",
		expect:  expectMachine, named: true, state: true},
	{Name: "registry", Section: SectionExpectation, Short: "requests that the registry answered since the step's begin",
		Grammar: "registry: {method: METHOD, path: PATH, account: ACCOUNT, caller: CALLER, status: N, count: N}",
		Notes:   "path, account and caller are globs; path is what follows /v2/. At least one request, or exactly count.",
		Example: "registry: {method: DELETE, path: openshift/os-image/manifests/*, status: 202, count: 0}", expect: expectRegistry},
	{Name: inSince, Section: SectionExpectation, Short: "the first release that the expectations beside it hold for",
		Grammar: "{since: RELEASE, EXPECTATION, ...}\nNAME OF THE RULE: {since: RELEASE, EXPECTATION}",
		Notes: "For older releases they are left out. since holds for all expectations of its mapping, in a list for those of the\n" +
			"one item. If a step acts, what is left of its expect must not have held before.\n" + releaseNotes,
		Example: "{since: \"4.20\", machineosbuild layered-*: {condition: Failed}}"},
	{Name: "true", Section: SectionExpectation, Short: "a CEL expression over the whole cluster",
		Grammar: "true: EXPRESSION",
		Notes: "list(\"KIND\") are all objects of a kind, get(\"KIND\", \"NAME\") is one, now is the time, and text.glob(\"a*\") matches\n" +
			"a glob. An expression that fails, because an object or a field is missing, is not true.",
		Example: "true: list(\"node\").filter(n, n.metadata.name.glob(\"layered-*\")).all(n, !has(n.spec.unschedulable))",
		expect:  expectTrue, state: true},
	{Name: inUntil, Section: SectionExpectation, Short: "the last release that the expectations beside it hold for",
		Grammar: "{until: RELEASE, EXPECTATION, ...}\nNAME OF THE RULE: {until: RELEASE, EXPECTATION}",
		Notes:   "See since. With both the expectations hold from the one to the other.",
		Example: "{since: \"4.19\", until: \"4.20\", boots: {layered-*: 2}}"},
}

var checkWords = []Word{
	{Name: "all", Section: SectionCheck, Short: "each object of that name must meet the checks, not just one",
		Grammar: "all: true", Example: "nodes layered-*: {all: true, condition: Ready}"},
	{Name: "apart", Section: SectionCheck, Short: "below ever: the least times between one match and the next",
		Grammar: "apart: [DURATION, ...]", Notes: "One less than count.",
		Example: "pods build-layered-*: {count: 4, apart: [10s, 20s, 40s]}"},
	{Name: "columns", Section: SectionCheck, Short: "cells of the row that oc get prints, by their headers",
		Grammar: "columns: {HEADER: TEXT, ...}", Notes: "TEXT may hold *.",
		Example: "machineconfigpool layered: {columns: {UPDATED: \"False\", READYMACHINECOUNT: 0}}"},
	{Name: "condition", Section: SectionCheck, Short: "conditions that the object must have, all of them",
		Grammar: "condition: TYPE, TYPE=STATUS, {type: TYPE, status: STATUS, reason: TEXT, message: TEXT} or a list of them",
		Notes: "The status is True where none is given. A condition that isn't there is False, unless a reason or a message is\n" +
			"asked for. reason and message may hold *.",
		Example: "machineconfigpool layered: {condition: [Updated=False, {type: ImageBuildDegraded, reason: BuildFailed}]}"},
	{Name: "count", Section: SectionCheck, Short: "exactly so many objects must meet the checks",
		Grammar: "count: N", Example: "machineosbuild layered-*: {count: 1, condition: Building}"},
	{Name: "degraded", Section: SectionCheck, Short: "a pool's status.degradedMachineCount",
		Grammar: "degraded: N", Example: "machineconfigpool layered: {degraded: 1}"},
	{Name: "exists", Section: SectionCheck, Short: "false: no object meets the other checks (count: 0)",
		Grammar: "exists: false", Example: "machineosbuild layered-*: {exists: false}"},
	{Name: "machines", Section: SectionCheck, Short: "a pool's status.machineCount",
		Grammar: "machines: N", Example: "machineconfigpool layered: {machines: 3}"},
	{Name: "matches", Section: SectionCheck, Short: "a part of the object",
		Grammar: "matches: {FIELDS}", Notes: "Mappings are parts too, each item of a list must fit one of the object's, texts may hold *, null means absent.",
		Example: "machineosconfig layered: {matches: {status: {currentImagePullSpec: \"*@sha256:*\"}}}"},
	{Name: "phase", Section: SectionCheck, Short: "status.phase of a pod, machine or namespace",
		Grammar: "phase: PHASE", Example: "pods build-layered-*: {count: 4, phase: Failed}"},
	{Name: "ready", Section: SectionCheck, Short: "a pool's status.readyMachineCount",
		Grammar: "ready: N", Example: "machineconfigpool layered: {ready: 2}"},
	{Name: "row", Section: SectionCheck, Short: "the row that oc get prints, cell by cell from the left",
		Grammar: "row: CELLS WITH BLANKS BETWEEN THEM\nrow: [CELL, ...]", Notes: "Cells may hold *, and cells on the right may be left out. The list can hold empty cells.",
		Example: "machineconfigpool layered: {row: layered rendered-layered-* False True False 2 0 0 0}"},
	{Name: "unavailable", Section: SectionCheck, Short: "a pool's status.unavailableMachineCount",
		Grammar: "unavailable: N", Example: "machineconfigpool layered: {unavailable: 1}"},
	{Name: "updated", Section: SectionCheck, Short: "a pool's status.updatedMachineCount",
		Grammar: "updated: N", Example: "machineconfigpool layered: {updated: 2}"},
	{Name: "where", Section: SectionCheck, Short: "a CEL expression over object, in rules also oldObject",
		Grammar: "where: EXPRESSION",
		Notes: "Fields are checked against the API. An expression that fails, because a field is missing, is not met: ask\n" +
			"has(object.x) first. now is the time, and text.glob(\"a*\") matches a glob.",
		Example: "node layered-*: {where: \"'machineconfiguration.openshift.io/desiredImage' in object.metadata.annotations\"}"},
}

// faultWords are made from the table of places, so that they can't differ.
func faultWords() []Word {
	examples := map[string]string{
		"api":        "fault: {on: api, do: conflict, caller: machine-os-builder, verb: update, kind: machineosbuild, times: 2}",
		"build":      "fault: {on: build, do: kill, build: layered-*, phase: push, times: 1}",
		"host":       "fault: {on: host, do: pause, duration: 30m}",
		"node":       "fault: {on: node, do: fail, node: layered-1, phase: pull, times: 3}",
		"registry":   "fault: {on: registry, do: unauthorized, caller: node/*, method: GET, path: openshift/os-image/*}",
		"repository": "fault: {on: repository, do: missing-package, package: tree}",
	}
	var out []Word
	for _, p := range places {
		w := Word{Name: p.name, Section: SectionFault, Short: p.one, Example: examples[p.name]}
		w.Grammar = "fault: {on: " + p.name + ", do: " + strings.Join(p.does, " | ")
		for _, aim := range p.aims {
			w.Grammar += ", " + aim + ": " + aimForms[aim]
		}
		w.Grammar += ", ...}"
		var notes []string
		for i, do := range p.does {
			notes = append(notes, "  "+do+": "+p.means[i])
		}
		w.Notes = "What happens:\n" + strings.Join(notes, "\n")
		if p.phases != nil {
			w.Notes += "\nPhases: " + strings.Join(p.phases, ", ") + "."
		}
		out = append(out, w)
	}
	return out
}

// aimForms are the forms of a fault's aims.
var aimForms = map[string]string{
	"build": "GLOB", "caller": "GLOB", "kind": "KIND", "method": "METHOD", "node": "GLOB", "object": "GLOB",
	"package": "NAME", "path": "GLOB", "phase": "PHASE", "repository": "GLOB", "verb": "VERB", "when": "before or after",
}

var clusterWords = []Word{
	{Name: "accounts", Section: SectionCluster, Short: "accounts of the registry and what they may pull and push",
		Grammar: "accounts: {NAME: {pull: [REPOSITORY, ...], push: [REPOSITORY, ...]}, ...}",
		Notes:   "A repository may end in *.",
		Example: "accounts: {pusher: {pull: [openshift/os-image], push: [openshift/os-image]}}"},
	{Name: "builders", Section: SectionCluster, Short: "replicas of machine-os-builder",
		Grammar: "builders: N", Notes: "Default 1. One of them leads.", Example: "builders: 2"},
	{Name: "controllers", Section: SectionCluster, Short: "replicas of machine-config-controller",
		Grammar: "controllers: N", Notes: "Default 1. One of them leads.", Example: "controllers: 2"},
	{Name: "machineSets", Section: SectionCluster, Short: "machine sets with their start size",
		Grammar: "machineSets: {NAME: {replicas: N, roles: [ROLE, ...], zone: ZONE}, ...}",
		Notes:   "Their nodes are converged at the start, too, and are named NAME-...",
		Example: "machineSets: {layered: {replicas: 3, roles: [worker, layered]}}"},
	{Name: "nodes", Section: SectionCluster, Short: "nodes, converged at the start",
		Grammar: "nodes: {NAME: {count: N, roles: [ROLE, ...], zone: ZONE}, ...}",
		Notes:   "With count they are NAME-1 to NAME-N, without it there is one, NAME. roles default to worker.",
		Example: "nodes: {layered: {count: 2, roles: [worker, layered]}}"},
	{Name: "objects", Section: SectionCluster, Short: "further objects, created last",
		Grammar: "objects: FILE, an object, or a list of both", Notes: "See apply.",
		Example: "objects: {apiVersion: v1, kind: Namespace, metadata: {name: shop}}"},
	{Name: "pools", Section: SectionCluster, Short: "machine config pools; master and worker always exist",
		Grammar: "pools: {NAME: {maxUnavailable: N or PERCENT, paused: BOOL}, ...}",
		Notes:   "maxUnavailable defaults to 1.", Example: "pools: {layered: {maxUnavailable: 50%}}"},
	{Name: "secrets", Section: SectionCluster, Short: "Secrets that hold credentials of accounts",
		Grammar: "secrets: {NAME or NAMESPACE/NAME: ACCOUNT or {account: ACCOUNT, host: HOST}, ...}", Notes: "See the action secret.",
		Example: "accounts: {pusher: {push: [\"*\"]}}\nsecrets: {builder-dockercfg-7lzwl: pusher}"},
	{Name: "workloads", Section: SectionCluster, Short: "Deployments in namespace default, to have something to drain",
		Grammar: "workloads: {NAME: {replicas: N, minAvailable: N or PERCENT, nodeSelector: {LABEL: VALUE}}, ...}",
		Notes:   "minAvailable makes a PodDisruptionBudget.",
		Example: "workloads: {web: {replicas: 3, minAvailable: 2}}"},
}
