// Package store is a Kubernetes API server in memory, for simulations that need its semantics and its history but no
// network, no etcd and no wall clock.
//
// A [Store] holds a sequence of revisions. Each write that changes something makes one: a number that is the object's
// resourceVersion, a [Change] with author and time in the [Log] of its kind, and an immutable snapshot of the kind, which
// costs the copy of one path of a tree. So a lagging cache is a revision per kind ([View]), and nothing is copied to
// keep one.
//
// A [Client] is a client.WithWatch, with the subresources status, scale, pods/eviction, pods/binding and
// namespaces/finalize. Reads go through its view, writes always to the newest state. Its Before and After hooks see
// every request, which is the place for faults; they are called with no lock held and may panic to unwind a caller.
// The observers of [Store.OnChange] and [Store.OnRefused] are called in order, before the write returns; they may read
// the store and must not write to it.
//
// # Semantics
//
// They are kube-apiserver's, as are the words of the errors, which are of the right reason and code:
//
//   - resourceVersion conflicts; updates without one where the kind allows it; a write that changes nothing makes no
//     revision; uid, creationTimestamp in whole seconds, generateName;
//   - generation grows with .spec for kinds that have one to observe (and with the annotations of a Deployment), for
//     custom resources with anything but metadata and a status subresource, and with the start of a deletion;
//   - status is a subresource where the kind has it: a main write leaves it alone, and a status write the rest, except
//     for the metadata that built-in kinds let through. A Node may be created with a status;
//   - deletion with preconditions, finalizers and the three propagation policies, of which foreground and orphan leave
//     the garbage collector's finalizers for it to act on; a Job that is deleted without a policy orphans its pods, as in
//     batch/v1; a pod bound to a node stays until it is deleted with a grace period of 0; a namespace stays
//     Terminating until its spec.finalizers are emptied through the subresource finalize;
//   - JSON, merge and (for built-in kinds) strategic merge patches, and server-side apply with conflicts;
//   - an eviction takes a disruption from the PodDisruptionBudget or is refused with 429 and its cause;
//   - label and field selectors, limit and continue, dry run, watches from a revision, 410 Gone after [Store.Compact];
//   - the lists' and watches' selections count: an object that starts to match is ADDED, one that ceases to is DELETED;
//   - a namespaced object needs a namespace that exists and isn't terminating.
//
// CustomResourceDefinitions are installed by creating them. Custom resources are pruned, defaulted and validated by
// Kubernetes' own libraries: structural schema, list types, CEL rules with transitions, ratcheting and cost limits.
// A schema is compiled when the first object of its kind is written, and once per process.
//
// Built-in kinds (the table in kinds.go) are defaulted and validated as far as controllers meet it: what they read is
// set, what they may not change is immutable, and names, labels, keys and required fields are checked.
//
// [Store.Table] and [TableOf] make the tables that `oc get` prints.
//
// # Determinism
//
// Times come from the clock and UIDs and name suffixes from the seed, in the order of the writes; lists are in key
// order. The same writes in the same order make the same store, byte for byte.
//
// # Limitations
//
//   - A new store is empty: there is no namespace default or kube-system until one is created.
//   - One version of each kind is served, for a custom resource the storage version. core/v1 and events.k8s.io/v1 Events
//     are two kinds that don't see each other's objects. PersistentVolumeClaims, StatefulSets and others don't exist.
//   - Admission is NamespaceLifecycle, DefaultTolerationSeconds and the pods' priority and default service account.
//     There is no authorization, webhook, quota or service account token volume, and no service account need exist.
//   - managedFields are kept for an object from its first server-side apply on; what was written before belongs to
//     the manager before-first-apply. The schemas of built-in kinds are derived from the Go types' patch tags, so that a
//     list with a patch merge key is a map by that key, and one without is atomic.
//   - A CustomResourceDefinition is established at once and in the same revision, is not itself checked against the
//     rules for structural schemas, and takes its objects with it at once when it is deleted.
//   - Services get no address, Events don't expire, unknown fields are dropped without a warning.
//   - An immutable pod spec is refused without the difference that kube-apiserver appends to the message.
//   - A watch has a buffer instead of a goroutine. A reader that falls more than 8192 events behind finds its channel
//     closed and has to list and watch again. Bookmarks are only sent at the end of initial events.
//   - Exact lists by resourceVersion are served as long as the snapshots are there, which is until Compact.
package store
