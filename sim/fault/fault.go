// Package fault aims faults at a simulated cluster and keeps account of which of them fired.
//
// A fault says where it strikes (on), what it does there (do), and at which occurrences: by caller, verb, kind and name at
// the API server; by caller, method and path at the registry; by node and phase on a machine; by build and phase in a
// build pod; by name at a package repository. skip lets a number of matching occurrences pass, times ends the fault after
// a number of hits. The grammar is that of package scenario.
//
// An [Injector] has one seam for each place, a function that the place calls before (or after) it does something. A fault
// that is armed but never fires is a mistake in the scenario or in the world: [Injector.Unfired] lists them, and the
// runner fails the scenario.
package fault

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/layersim/layersim/controllers/layering"
	"github.com/layersim/layersim/sim/builder"
	"github.com/layersim/layersim/sim/history"
	"github.com/layersim/layersim/sim/node"
	"github.com/layersim/layersim/sim/registry"
	"github.com/layersim/layersim/sim/scenario"
	"github.com/layersim/layersim/sim/store"
)

// Injector holds the faults of a run. Its methods may be called at the same time; what it calls must not call it back.
type Injector struct {
	// Record gets a record when a fault is armed, fires and is healed.
	Record func(history.Record)
	// Repositories are what faults on repositories switch.
	Repositories Repositories
	// PowerOff takes a machine off, PowerOn brings it back.
	PowerOff, PowerOn func(node string)
	// Host, where not nil, is what the cluster itself runs on.
	Host Host
	// Later calls a function after a time.
	Later func(time.Duration, func())

	mu     sync.Mutex // guards faults and what is in them
	faults []*armed
}

// Repositories are the package repositories that builds install from.
type Repositories interface {
	// Match returns the ids of the repositories that match the glob.
	Match(glob string) []string
	// SetUnreachable makes the repositories that match the glob unreachable, or reachable again.
	SetUnreachable(glob string, unreachable bool)
	// SetMissing hides a package from the repositories that match the glob, or shows it again.
	SetMissing(glob, pkg string, missing bool)
}

// Host is what a cluster itself runs on. Begin lets something happen to it, End takes it back; a do is one of those that
// package scenario has for the place.
type Host interface {
	Begin(do string) error
	End(do string) error
}

// armed is a fault at work.
type armed struct {
	scenario.Fault
	passed, fired int
	healed        bool
}

// Arm lets a fault strike from now on. An error means that it can't.
func (i *Injector) Arm(f scenario.Fault) error {
	a := &armed{Fault: f}
	if f.On == "host" {
		if i.Host == nil {
			return fmt.Errorf("arm fault %s: the cluster runs on no host that could be harmed", f.Name)
		}
		if err := i.Host.Begin(f.Do); err != nil {
			return fmt.Errorf("arm fault %s: %w", f.Name, err)
		}
	}
	i.mu.Lock()
	i.faults = append(i.faults, a)
	i.record(a, "armed", fmt.Sprintf("on %s do %s", f.On, f.Do))
	if f.On == "repository" {
		i.repository(a, true)
	}
	i.mu.Unlock()
	if f.Duration > 0 && f.Do != "delay" {
		i.Later(f.Duration, func() {
			if err := i.heal(a); err != nil {
				i.mu.Lock()
				defer i.mu.Unlock()
				i.record(a, "stays", err.Error())
			}
		})
	}
	if a.On == "host" {
		i.mu.Lock()
		defer i.mu.Unlock()
		i.strike(a, a.Do)
	}
	if a.power() {
		i.PowerOff(f.Object) // not under the lock: what is due on the machine asks for faults
		i.mu.Lock()
		defer i.mu.Unlock()
		i.strike(a, "machine "+f.Object+" lost power")
	}
	return nil
}

func (a *armed) power() bool { return a.On == "node" && a.Do == "power-off" }

// Heal ends faults by name, or all faults on a place.
func (i *Injector) Heal(name string) error {
	i.mu.Lock()
	var found []*armed
	for _, a := range i.faults {
		if a.Name == name || a.On == name {
			found = append(found, a)
		}
	}
	i.mu.Unlock()
	if len(found) == 0 {
		return fmt.Errorf("heal %s: no fault of that name or place was armed", name)
	}
	var errs []error
	for _, a := range found {
		errs = append(errs, i.heal(a))
	}
	return errors.Join(errs...)
}

func (i *Injector) heal(a *armed) error {
	i.mu.Lock()
	was := a.healed
	a.healed = true
	i.mu.Unlock()
	if was {
		return nil
	}
	if a.On == "host" { // before the history says so
		if err := i.Host.End(a.Do); err != nil {
			return fmt.Errorf("heal fault %s: %w", a.Name, err)
		}
	}
	i.mu.Lock()
	i.end(a)
	i.mu.Unlock()
	if a.power() {
		i.PowerOn(a.Object)
	}
	return nil
}

// end is the end of a fault. The caller holds the lock.
func (i *Injector) end(a *armed) {
	a.healed = true
	if a.On == "repository" {
		i.repository(a, false)
	}
	i.record(a, "healed", "")
}

func (i *Injector) repository(a *armed, on bool) {
	if a.Do == "missing-package" {
		i.Repositories.SetMissing(a.glob(), a.Package, on)
		return
	}
	i.Repositories.SetUnreachable(a.glob(), on)
}

func (a *armed) glob() string {
	if a.Object == "" {
		return "*"
	}
	return a.Object
}

// Unfired lists the faults that never fired.
func (i *Injector) Unfired() []string {
	i.mu.Lock()
	defer i.mu.Unlock()
	var names []string
	for _, a := range i.faults {
		if a.fired == 0 {
			names = append(names, a.Name)
		}
	}
	return names
}

// Timed reports whether a fault is armed that will heal itself after a time.
func (i *Injector) Timed() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return slices.ContainsFunc(i.faults, func(a *armed) bool { return !a.healed && a.Duration > 0 && a.Do != "delay" })
}

// hits counts an occurrence that the fault is aimed at, and reports whether it strikes.
func (i *Injector) hits(a *armed, what string) bool {
	if a.passed < a.Skip {
		a.passed++
		return false
	}
	i.strike(a, what)
	if a.Times > 0 && a.fired >= a.Times {
		i.end(a)
	}
	return true
}

func (i *Injector) strike(a *armed, what string) {
	a.fired++
	i.record(a, "fired", what)
}

func (i *Injector) record(a *armed, event, message string) {
	i.Record(history.Record{Fault: &history.Fault{Name: a.Name, Event: event, Message: message}})
}

func aims(glob, text string) bool { return glob == "" || scenario.Match(glob, text) }

// Before is the seam ahead of requests to the API server.
func (i *Injector) Before(r *store.Request) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, a := range i.faults {
		if a.Do == "lost-response" || a.Do == "delay" || a.When == "after" || !a.aimedAt(r) || !i.hits(a, describe(r)) {
			continue
		}
		return a.refusal(r)
	}
	return nil
}

// After is the seam behind requests to the API server: the request was done, its answer may get lost.
func (i *Injector) After(r *store.Request, err error) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if err != nil {
		return err
	}
	for _, a := range i.faults {
		if a.Do == "delay" || a.Do != "lost-response" && a.When != "after" || !a.aimedAt(r) || !i.hits(a, describe(r)+", its answer was lost") {
			continue
		}
		return a.refusal(r)
	}
	return nil
}

// Hold is the seam of watches: how long an event of a kind is held back from a component. Aims at verbs, names and
// occurrences before or after don't apply.
func (i *Injector) Hold(component string, gvk schema.GroupVersionKind) time.Duration {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, a := range i.faults {
		if a.On == "api" && a.Do == "delay" && !a.healed && aims(a.Caller, component) && (a.Kind == "" || a.Kind == gvk.Kind) &&
			i.hits(a, "watch event of "+gvk.Kind+" for "+component) {
			return a.Duration
		}
	}
	return 0
}

func (a *armed) aimedAt(r *store.Request) bool {
	return a.On == "api" && !a.healed && aims(a.Caller, r.Author) && (a.Verb == "" || a.Verb == r.Verb) &&
		(a.Kind == "" || strings.EqualFold(a.Kind, r.GVK.Kind)) && aims(a.Object, r.Name)
}

func describe(r *store.Request) string {
	return fmt.Sprintf("%s %s/%s by %s", r.Verb, strings.ToLower(r.GVK.Kind), r.Name, r.Author)
}

func (a *armed) refusal(r *store.Request) error {
	resource := schema.GroupResource{Group: r.GVK.Group, Resource: strings.ToLower(r.GVK.Kind) + "s"}
	switch a.Do {
	case "conflict":
		return apierrors.NewConflict(resource, r.Name, fmt.Errorf("the object has been modified (fault %s)", a.Name))
	case "timeout", "lost-response":
		return apierrors.NewTimeoutError(fmt.Sprintf("the server did not answer in time (fault %s)", a.Name), 1)
	}
	return apierrors.NewInternalError(fmt.Errorf("fault %s", a.Name))
}

// Answer is the seam of the registry for answers in its place.
func (i *Injector) Answer(r *http.Request, caller string) *http.Response {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, a := range i.faults {
		if a.Do == "unreachable" || !a.aimedAtRegistry(r, caller) || !i.hits(a, r.Method+" "+r.URL.Path+" by "+caller) {
			continue
		}
		switch a.Do {
		case "unauthorized":
			return registry.Answer(r, http.StatusUnauthorized, "UNAUTHORIZED", "authentication required")
		case "forbidden":
			return registry.Answer(r, http.StatusForbidden, "DENIED", "requested access to the resource is denied")
		case "not-found":
			return registry.Answer(r, http.StatusNotFound, "MANIFEST_UNKNOWN", "manifest unknown")
		case "quota":
			return registry.Answer(r, http.StatusForbidden, "DENIED", "quota exceeded")
		}
		return registry.Answer(r, http.StatusInternalServerError, "UNKNOWN", "internal error")
	}
	return nil
}

// Reach is the seam of the registry for requests that never reach it.
func (i *Injector) Reach(r *http.Request, caller string) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, a := range i.faults {
		if a.Do == "unreachable" && a.aimedAtRegistry(r, caller) && i.hits(a, r.Method+" "+r.URL.Path+" by "+caller) {
			return registry.Refused(r.URL.Host)
		}
	}
	return nil
}

func (a *armed) aimedAtRegistry(r *http.Request, caller string) bool {
	return a.On == "registry" && !a.healed && aims(a.Caller, caller) && (a.Method == "" || a.Method == r.Method) &&
		aims(a.Path, strings.TrimPrefix(r.URL.Path, "/v2/"))
}

// Node is the seam of a machine's phases.
func (i *Injector) Node(nodeName, phase string) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, a := range i.faults {
		if a.On == "node" && a.Do != "power-off" && !a.healed && aims(a.Object, nodeName) && (a.Phase == "" || a.Phase == phase) &&
			i.hits(a, nodeName+" at "+phase) {
			if a.Do == "hang" {
				return fmt.Errorf("fault %s at %s: %w", a.Name, phase, node.ErrHang)
			}
			return fmt.Errorf("fault %s at %s", a.Name, phase)
		}
	}
	return nil
}

// Build is the seam of a build pod's phases.
func (i *Injector) Build(pod *corev1.Pod, phase string) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	build := strings.TrimPrefix(pod.Labels["batch.kubernetes.io/job-name"], layering.JobName(""))
	for _, a := range i.faults {
		if a.On == "build" && !a.healed && aims(a.Object, build) && (a.Phase == "" || a.Phase == phase) &&
			i.hits(a, pod.Name+" at "+phase) {
			switch a.Do {
			case "hang":
				return builder.ErrHang
			case "kill":
				return &builder.ExitError{Code: 137, Reason: "OOMKilled", Message: "Killed"}
			}
			return fmt.Errorf("fault %s at %s", a.Name, phase)
		}
	}
	return nil
}

// BuildFailed is told the log of each build that failed: a fault on a package repository has fired when the log of a
// failed build names the repository, or the package that is missing.
func (i *Injector) BuildFailed(pod, log string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, a := range i.faults {
		if a.On != "repository" || a.healed {
			continue
		}
		named := a.Do == "missing-package" && strings.Contains(log, a.Package)
		if a.Do == "unreachable" {
			named = slices.ContainsFunc(i.Repositories.Match(a.glob()), func(id string) bool { return strings.Contains(log, id) })
		}
		if named {
			i.hits(a, "build in "+pod)
		}
	}
}

// Track accounts for something that is no fault of this package but must happen too, such as a crash: until the returned
// function is called, it counts as a fault that never fired.
func (i *Injector) Track(name string) (fired func(message string)) {
	i.mu.Lock()
	defer i.mu.Unlock()
	a := &armed{Fault: scenario.Fault{Name: name, On: "process"}}
	i.faults = append(i.faults, a)
	i.record(a, "armed", "")
	return func(message string) {
		i.mu.Lock()
		defer i.mu.Unlock()
		i.strike(a, message)
	}
}
