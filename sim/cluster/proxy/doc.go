// Package proxy is what stands between controllers and a real API server: an HTTP reverse proxy that knows who asks,
// records what is written, and lets faults strike.
//
// A [Proxy] listens on a loopback port. [Proxy.Admit] gives each incarnation of a process a [Caller] with a URL of its own,
// the proxy's with a path in front. That path is the identity: no credential is needed, those that a caller sends are
// dropped, and the API server is asked as an administrator in the name of the caller, or with [Proxy.AdmitAs] as somebody
// with rights of his own: a service account.
//
//	p, err := proxy.New(proxy.Options{Target: admin, Kinds: kinds, Before: faults.Before, After: faults.After, Observe: record})
//	builder := p.Admit("machine-os-builder")
//	os.WriteFile(file, builder.Kubeconfig(), 0o600) // for a process, or builder.Config() for a client in this one
//	builder.CrashAt(world.Crash{After: true, Write: 1, Verb: "create", Kind: "Job"}, func() { /* start it again */ })
//
// Each request for a resource that is not a watch goes this way: a crash before it, Options.Before, the API server, a crash
// after it, Options.After, Options.Observe, the caller. A fault's error is answered as the API server answers errors, with
// a Retry-After where the error has one; client-go itself repeats such a request, up to ten times, before its user sees an
// error. Watches, logs, sessions (exec, attach, port-forward, proxy), discovery and health checks pass as they are.
//
// So that requests and answers can be read, answers are asked for as JSON where the caller asks for protobuf or CBOR,
// and never compressed. Clients decode by the content type of the answer. Bodies may be JSON, YAML, CBOR or protobuf; those
// of custom kinds are never protobuf.
//
// While the API server doesn't answer, callers are told 503, and then until it says that it is ready: as by the load balancer
// of a cluster.
//
// When a caller goes away, hung up or cut, its reads and watches end at the API server as well. A write that was passed on
// already is given ten seconds to finish, because its outcome is part of what happened: it is observed, and nobody hears it.
//
// # Limitations
//
//   - A write that the API server doesn't answer (it died, or ten seconds were over) is observed with code 503, done or not.
//   - With CrashAt after a write, another write of the same incarnation that was passed on earlier can still be done.
//   - The hooks see everything, Leases and Events too, unlike those of the simulator; see [Housekeeping].
package proxy
