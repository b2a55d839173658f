package agent

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/layersim/layersim/sim/history"
	"github.com/layersim/layersim/sim/registry"
)

// The ports of the registry's pod.
const (
	RegistryPort = 5000 // TLS
	ProxyPort    = 3128 // a proxy into it, see [Front]
)

// What the registry's agent asks layersim.
const (
	// SettingsPath answers [Settings], before the first request is answered.
	SettingsPath = "/registry/settings"
	// RequestPath is asked a [Request] before it is answered, and answers a [Verdict].
	RequestPath = "/registry/request"
	// CallerPath is asked the address of somebody who doesn't say who he is, and answers who that is.
	CallerPath = "/registry/caller"
	// JournalPath is told each [history.Registry] before the request is answered.
	JournalPath = "/registry/journal"
)

// What layersim asks the registry's agent.
const (
	// SetPath is told new [Settings]. Older ones than the present are ignored.
	SetPath = "/settings"
	// PutImagePath is told an [Image] to put into the registry, and answers its digest.
	PutImagePath = "/put-image"
	// DeleteImagePath is told a reference.
	DeleteImagePath = "/delete-image"
	// ExchangePath is told an [Exchange]: a request of somebody in layersim's process.
	ExchangePath = "/exchange"
	// ContentPath answers what is there, for people: a [Content].
	ContentPath = "/content"
)

// Settings are what the registry goes by. They are layersim's: the agent has them as long as it runs.
type Settings struct {
	// Version grows with each change.
	Version  int64              `json:"version"`
	Run      string             `json:"run"` // its images are none of another run's
	Hosts    []string           `json:"hosts"`
	Host     string             `json:"host"` // see FrontOptions
	Accounts []registry.Account `json:"accounts"`
	Quotas   map[string]int64   `json:"quotas"`
}

// Request is one that the registry is about to answer. It has no credentials.
type Request struct {
	Method string `json:"method"`
	Host   string `json:"host"`
	Path   string `json:"path"`
	Caller string `json:"caller"`
}

// Verdict says what becomes of a request: it is answered, unless one of these is set.
type Verdict struct {
	// Error lets it fail on its way.
	Error string `json:"error,omitempty"`
	// Response is given in place of the registry's, in HTTP's own form.
	Response []byte `json:"response,omitempty"`
}

// Image is one to put into the registry.
type Image struct {
	Reference string            `json:"reference"`
	Content   *registry.Content `json:"content"`
}

// Exchange is a request to the registry, and then its response, both in HTTP's own form.
type Exchange struct {
	Caller  string `json:"caller"`
	Message []byte `json:"message"`
	// Error is set where there is no response.
	Error string `json:"error,omitempty"`
}

// Content is what a registry holds.
type Content struct {
	Settings int64               `json:"settings"` // their version
	Accounts []string            `json:"accounts"`
	Tags     map[string][]string `json:"tags"`  // by repository
	Usage    map[string]int64    `json:"usage"` // likewise, in bytes
	Journal  []history.Registry  `json:"journal"`
}

// Registry is the registry's agent: package registry as a program. Before it answers a request it asks layersim, where all
// faults of a run are counted, and it tells layersim of each answer before it is given.
type Registry struct {
	world    *Asker
	registry *registry.Registry
	host     string

	// given are the responses that layersim gives in place of the registry's, by *http.Request, between the two hooks.
	given sync.Map

	mu       sync.Mutex // guards what follows; held while settings are taken over
	settings Settings
}

// OpenRegistry asks layersim for the settings and takes in what was pushed before in the same run. The images of a run are in a
// folder of their own below the storage; what other runs left there is removed. The context ends the asking and telling.
func OpenRegistry(ctx context.Context, world *Asker, storage string) (*Registry, error) {
	var s Settings
	if err := world.Ask(ctx, SettingsPath, struct{}{}, &s); err != nil {
		return nil, err
	}
	r := &Registry{world: world, host: s.Host}
	r.registry = registry.New(registry.Options{Hosts: s.Hosts, Observe: func(j history.Registry) {
		if err := world.Ask(ctx, JournalPath, j, nil); err != nil && ctx.Err() == nil {
			log.Print(err) // there is no layersim any more, or the run is over
		}
	}})
	r.registry.SetErrorHook(r.before)
	r.registry.SetHook(func(request *http.Request, _ string) *http.Response {
		response, _ := r.given.LoadAndDelete(request)
		given, _ := response.(*http.Response)
		return given
	})
	folder, err := tidy(storage, s.Run)
	if err != nil {
		return nil, err
	}
	if err := r.registry.Keep(registry.Folder(folder)); err != nil {
		return nil, err
	}
	r.set(s)
	return r, nil
}

// tidy removes the folders of other runs, and returns this one's.
func tidy(storage, run string) (string, error) {
	if run == "" || strings.ContainsAny(run, "/.") {
		return "", fmt.Errorf("the run %q has no name for a folder", run)
	}
	entries, err := os.ReadDir(storage)
	if err != nil {
		return "", fmt.Errorf("open storage: %w", err)
	}
	for _, e := range entries {
		if e.Name() == run {
			continue
		}
		if err := os.RemoveAll(filepath.Join(storage, e.Name())); err != nil {
			return "", fmt.Errorf("tidy storage: %w", err)
		}
	}
	return filepath.Join(storage, run), nil
}

// before asks layersim what becomes of a request.
func (r *Registry) before(request *http.Request, caller string) error {
	var v Verdict
	err := r.world.Ask(request.Context(), RequestPath, Request{
		Method: request.Method, Host: request.URL.Host, Path: request.URL.Path, Caller: caller}, &v)
	switch {
	case err != nil:
		return err
	case v.Error != "":
		return errors.New(v.Error)
	case v.Response != nil:
		response, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(v.Response)), request)
		if err != nil {
			return fmt.Errorf("read layersim's response: %w", err)
		}
		r.given.Store(request, response)
	}
	return nil
}

// set takes settings over, unless they are older than the present ones.
func (r *Registry) set(s Settings) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s.Version < r.settings.Version {
		return
	}
	for _, name := range r.registry.Accounts() {
		if !slices.ContainsFunc(s.Accounts, func(a registry.Account) bool { return a.Name == name }) {
			r.registry.RemoveAccount(name)
		}
	}
	for _, a := range s.Accounts {
		r.registry.SetAccount(a)
	}
	for repository := range r.settings.Quotas { // in any order
		r.registry.SetQuota(repository, 0)
	}
	for repository, bytes := range s.Quotas { // in any order
		r.registry.SetQuota(repository, bytes)
	}
	r.settings = s
}

// Answer lets layersim's questions be answered.
func (r *Registry) Answer(a *Answers) {
	Answer(a, SetPath, func(_ context.Context, _ string, s Settings) (struct{}, error) {
		r.set(s)
		return struct{}{}, nil
	})
	Answer(a, PutImagePath, func(_ context.Context, _ string, i Image) (string, error) {
		image, err := i.Content.Image()
		if err != nil {
			return "", err
		}
		return r.registry.PutImage(i.Reference, image)
	})
	Answer(a, DeleteImagePath, func(_ context.Context, _ string, reference string) (struct{}, error) {
		return struct{}{}, r.registry.Delete(reference)
	})
	Answer(a, ExchangePath, func(ctx context.Context, _ string, e Exchange) (Exchange, error) { return r.exchange(ctx, e) })
	Answer(a, ContentPath, func(context.Context, string, struct{}) (Content, error) { return r.content(), nil })
}

// exchange answers the request of somebody in layersim's process.
func (r *Registry) exchange(ctx context.Context, e Exchange) (Exchange, error) {
	request, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(e.Message)))
	if err != nil {
		return Exchange{}, fmt.Errorf("read request: %w", err)
	}
	request = request.WithContext(ctx)
	request.URL.Scheme, request.URL.Host, request.RequestURI = "https", request.Host, ""
	response, err := r.registry.Transport(e.Caller).RoundTrip(request)
	if err != nil {
		return Exchange{Error: err.Error()}, nil
	}
	defer response.Body.Close()
	var b bytes.Buffer
	if err := response.Write(&b); err != nil {
		return Exchange{}, fmt.Errorf("write response: %w", err)
	}
	return Exchange{Message: b.Bytes()}, nil
}

func (r *Registry) content() Content {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := Content{Settings: r.settings.Version, Accounts: r.registry.Accounts(), Tags: map[string][]string{}, Usage: map[string]int64{},
		Journal: r.registry.Journal()}
	for _, repository := range r.registry.Repositories() {
		c.Tags[repository], c.Usage[repository] = r.registry.Tags(repository), r.registry.Usage(repository)
	}
	return c
}

// Front is the way into the registry by the network.
func (r *Registry) Front(certificate tls.Certificate) *Front {
	return NewFront(FrontOptions{Registry: r.registry, Certificate: certificate, Host: r.host,
		Caller: func(ctx context.Context, address string) string {
			var caller string
			if err := r.world.Ask(ctx, CallerPath, address, &caller); err != nil && ctx.Err() == nil {
				log.Print(err)
			}
			return caller
		}})
}

// Serve is the registry's agent as a program, given a folder with [WorldFile], tls.crt and tls.key, and a folder for its storage.
// It ends with the context.
func Serve(ctx context.Context, given, storage string) error {
	world, err := World(given)
	if err != nil {
		return err
	}
	certificate, err := tls.LoadX509KeyPair(filepath.Join(given, "tls.crt"), filepath.Join(given, "tls.key"))
	if err != nil {
		return fmt.Errorf("read certificate: %w", err)
	}
	r, err := OpenRegistry(ctx, world, storage)
	if err != nil {
		return err
	}
	var listeners []net.Listener
	for _, port := range []int{RegistryPort, ProxyPort, AdminPort} {
		l, err := net.Listen("tcp", fmt.Sprintf(":%d", port))
		if err != nil {
			return err
		}
		defer l.Close()
		listeners = append(listeners, l)
	}
	front := r.Front(certificate)
	front.Direct(listeners[0])
	front.Proxy(listeners[1])
	answers := NewAnswers(world.Token)
	r.Answer(answers)
	answers.Ready()
	log.Printf("serving %v with %d repositories in storage", r.registry.Hosts(), len(r.registry.Repositories()))
	return errors.Join(answers.Serve(ctx, listeners[2]), front.Close())
}
