package cluster

import (
	"errors"
	"net/http"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/layersim/layersim/controllers/component"
	"github.com/layersim/layersim/sim/history"
	"github.com/layersim/layersim/sim/scenario"
	"github.com/layersim/layersim/sim/store"
	"github.com/layersim/layersim/sim/world"
)

// Start is the virtual time at which a simulated cluster comes to life. It is the day of the product documentation's
// examples.
var Start = time.Date(2025, 2, 12, 19, 0, 0, 0, time.UTC)

// Quiet is how long nothing may have changed until a simulated cluster counts as being at rest: longer than any pause that
// controllers make between two attempts, the longest being the drain controller's 5 minutes, and than a machine takes to
// boot.
const Quiet = 6 * time.Minute

// Capabilities are what a simulated cluster can do that scenarios may ask for by needs.
var Capabilities = []string{"virtual-time", "held-watches", "crashes", "power"}

// New makes a simulated cluster and brings it up: it returns when the cluster is at rest. Lag is that of watches; zero is
// the default: one event in 16 is held back for up to 2 s.
func New(t scenario.Topology, lag world.Lag, o Options) (*Cluster, error) {
	scheme, err := Scheme()
	if err != nil {
		return nil, err
	}
	if lag == (world.Lag{}) {
		lag = world.Lag{OneIn: 16, Most: 2 * time.Second}
	}
	o.Durations.Node.MonitorGrace = -1 // node-lifecycle sees to it
	clock := world.NewClock(Start)
	return Assemble(t, &simulated{
		seed: o.Seed, lag: lag, clock: clock, store: store.New(store.Options{Clock: clock, Scheme: scheme, Seed: o.Seed}),
	}, o)
}

// simulated is the engine of simulated clusters: a world and a store.
type simulated struct {
	seed     uint64
	lag      world.Lag
	clock    *world.Clock
	store    *store.Store
	world    *world.World
	recorder *history.Recorder
}

func (s *simulated) Name() string              { return "sim" }
func (s *simulated) Timing() Timing            { return Timing{Speed: 1, Quiet: Quiet, BringUp: Quiet} }
func (s *simulated) Clock() clock.PassiveClock { return s.clock }
func (s *simulated) Elapsed() time.Duration    { return s.clock.Elapsed() }
func (s *simulated) Revision() int64           { return s.store.Revision() }

func (s *simulated) Open(c *Cluster) error {
	s.recorder = c.Recorder
	s.observe(history.NewRedactor(s.seed))
	s.world = world.New(world.Options{
		Store: s.store, Clock: s.clock, Seed: s.seed, Recorder: c.Recorder, Lag: s.lag, Hold: c.Faults.Hold,
		Hooks: &world.Hooks{Before: c.Faults.Before, After: c.Faults.After},
	})
	return nil
}

// observe records revisions and refused writes.
func (s *simulated) observe(redactor *history.Redactor) {
	s.store.OnChange(func(change *store.Change) {
		r := history.Change{
			Author: change.Author, Verb: change.Verb, Subresource: change.Subresource, GVK: change.GVK,
			Namespace: change.Namespace, Name: change.Name,
		}
		if change.Old != nil {
			r.Old = redactor.Object(change.Old.Unstructured())
		}
		if change.New != nil {
			r.New = redactor.Object(change.New.Unstructured())
		}
		s.Record(history.Record{Revision: change.Revision, Change: &r})
	})
	s.store.OnRefused(func(r *store.Request, err error) {
		refused := history.Request{
			Author: r.Author, Verb: r.Verb, Subresource: r.Subresource, GVK: r.GVK, Namespace: r.Namespace, Name: r.Name,
			Code: 500, Message: err.Error(), Reason: string(apierrors.ReasonForError(err)),
		}
		var status apierrors.APIStatus
		if errors.As(err, &status) {
			refused.Code = status.Status().Code
		}
		s.Record(history.Record{Request: &refused})
	})
}

func (s *simulated) Record(r history.Record) { s.recorder.Add(r) }

func (s *simulated) Transport(r Registry, caller string) http.RoundTripper {
	return r.Transport(caller)
}

func (s *simulated) Client(author string) (client.WithWatch, error) {
	return s.store.Client(store.ClientOptions{Author: author}), nil
}

func (s *simulated) Start(name string, replicas int, components ...component.Component) error {
	_, err := s.world.Start(name, replicas, components...)
	return err
}

func (s *simulated) Process(name string) Process {
	if p := s.world.Process(name); p != nil {
		return simulatedProcess{p}
	}
	return nil
}

func (s *simulated) Processes() []string        { return s.world.Processes() }
func (s *simulated) Wake(component, key string) { s.world.Wake(component, key) }

func (s *simulated) Reconciles() int64 {
	_, reconciles := s.world.Counters()
	return reconciles
}

func (s *simulated) After(d time.Duration, fire func()) { s.world.After(d, fire) }

func (s *simulated) Deadline(d time.Duration, fire func()) func() {
	t := s.world.Deadline(d, fire)
	return func() { s.world.Stop(t) }
}

func (s *simulated) AddActor(a world.Actor)       { s.world.AddActor(a) }
func (s *simulated) Step() (world.Outcome, error) { return s.world.Step() }
func (s *simulated) Jump()                        { s.world.Jump() }
func (s *simulated) Busy() bool                   { return false }

type simulatedProcess struct{ *world.Process }

func (p simulatedProcess) CrashAt(c world.Crash) error {
	p.Process.CrashAt(c)
	return nil
}

func (p simulatedProcess) Stop() error {
	p.Process.Stop()
	return nil
}
