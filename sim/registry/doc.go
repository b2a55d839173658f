// Package registry is an image registry with accounts, faults, quota and a journal.
//
// It speaks the real /v2/ protocol: the blobs and manifests are kept by go-containerregistry's own handler, and this
// package stands in front of it. There are two ways in, with the same answers: [Registry.Transport] is an
// http.RoundTripper that answers in process, in the caller's goroutine and with no socket; and a [*Registry] is an
// http.Handler, which can be served on a listener with TLS.
//
// # Hosts
//
// One Registry answers to several host names, and each host has its own repositories. A request for another host fails
// in [Registry.Transport] with the error that a resolver gives, and gets 421 from the handler. "docker.io" and
// "index.docker.io" are the same host.
//
// # Accounts
//
// An [Account] has a name, a password, and patterns of the repositories that it may pull from and push to. The right
// to push includes the right to pull and to delete, as clients look for what is already there before they push.
//
//	no credentials            401 UNAUTHORIZED, with WWW-Authenticate: Basic
//	wrong name or password    401 UNAUTHORIZED
//	no right to it            403 DENIED
//
// Rotation is [Registry.SetAccount] with another password, revocation is [Registry.RemoveAccount]; both hold from the
// next request on. An account with an empty name holds the rights of requests that carry no credentials.
//
// The challenge is Basic and not a token service. With tokens a revoked account would keep its rights until its last
// token expires, a time that real registries set between one minute and one hour; here it would only blur the moment
// at which a rotation takes effect. It also halves the number of requests.
//
// # Deletion
//
// DELETE of a manifest by digest removes the tags that point to it too; DELETE by tag removes that tag only. Blobs
// that no manifest of the repository needs any more go with the manifest.
//
// # Quota
//
// A quota is set per repository and counts what a real image would take: each distinct layer with the size that its
// annotation [SizeAnnotation] gives, or else its true size. When it is exhausted, uploads are refused at their start;
// a manifest that would exceed it is refused too. Both give 403 DENIED, "quota exceeded".
//
// # Journal
//
// Each request that was answered is in the journal, those answered by a [Hook] included; a request that failed on its
// way (unknown host, [ErrorHook]) is not. Account names are in it, credentials never. Upload ids are random in the
// handler below; outside they are numbers counted from 1, and in the journal "-".
//
// # Storage
//
// What a registry holds is in memory. With [Registry.Keep] it is in a [Storage] as well, for example a [Folder], before a push or
// a deletion is answered; where that fails, the answer is 500. Another registry that keeps the same storage goes on where the
// first one ended, whenever that was: an upload that had not ended begins anew, all else is there.
//
// # What it does not do
//
// No token service, no redirects, no referrers API, no ImageStreams, no mirrors, no rate limits, no pull-through
// cache. Manifest lists can be pushed and pulled, but [Registry.Image] reads images only.
package registry
