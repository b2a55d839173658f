package node

import (
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"k8s.io/utils/clock"

	"github.com/layersim/layersim/sim/history"
)

// FleetOptions configure a Fleet. Clock and Transport are required.
type FleetOptions struct {
	// Clock tells the time that machines live by.
	Clock clock.PassiveClock
	// Transport gives the way to registries for a caller: "node/<name>", or "installer" for [Fleet.Install].
	Transport func(caller string) http.RoundTripper
	// InstallKeychain are the installer's credentials; nil means anonymous.
	InstallKeychain authn.Keychain
	// Observe, where not nil, sees what happens to machines.
	Observe func(history.Node)
	// Storage, where not nil, keeps the machines beyond the Fleet's end: [Fleet.Restore] brings them back.
	Storage Storage
	// Tell takes the place of Observe where there is Storage. A Fleet that was restored tells again what the one before may
	// not have told: a record is known by its machine, a number that no two machines share, and its serial, which counts the
	// machine's records from 1 and is told in order.
	Tell func(machine, serial int, record history.Node)
	// Wake, where not nil, asks the driver to queue a node's key in a component, because something happened to the
	// machine that no API event tells.
	Wake func(component, node string)
	// Before, where not nil, is asked before each phase of a node: drain, pull, stage, reboot, boot, uncordon, done. An
	// error makes the phase fail, or hang if it is ErrHang; it is asked again at the retry.
	Before func(node, phase string) error
	// Seed goes into boot and machine ids.
	Seed uint64

	Durations

	// RevertReboots is the number of reboots of a revert from a layered image to the base image: 1 (the default, as the
	// product documentation says) or 2 (as upstream's main does).
	RevertReboots int
	// LiveFiles applies a change of files alone without drain and reboot, as a node disruption policy None would.
	LiveFiles bool
	// NoMachineConfigNodes leaves MachineConfigNodes alone.
	NoMachineConfigNodes bool
}

// ErrHang is what Before returns, or wraps, for a phase that hangs.
var ErrHang = errors.New("hangs")

// Durations say how long things take on a machine. Zero means the default; negative means no time at all.
type Durations struct {
	Shutdown     time.Duration // from the reboot command to the machine being down; 30 s
	Boot         time.Duration // from power on to the kernel and systemd being up; 2 min
	KubeletReady time.Duration // from there to the kubelet posting Ready; 20 s
	Daemon       time.Duration // from there to the machine-config-daemon's first sync; 10 s
	RebaseFixed  time.Duration // the part of a rebase that doesn't depend on size; 45 s
	PodStart     time.Duration // from the binding of a pod to Ready; 3 s
	MonitorGrace time.Duration // from the last heartbeat to Ready=Unknown; 40 s. Negative: leave it to others
	DrainTimeout time.Duration // 1 h
	Uncordon     time.Duration // how long to wait for the uncordon; 10 min
	Bandwidth    int64         // of pulls, in bytes a second; 50 MB/s
}

func (d *Durations) setDefaults() {
	set := func(v *time.Duration, value time.Duration) {
		if *v == 0 {
			*v = value
		}
		*v = max(*v, 0)
	}
	if d.MonitorGrace == 0 {
		d.MonitorGrace = 40 * time.Second
	}
	set(&d.Shutdown, 30*time.Second)
	set(&d.Boot, 2*time.Minute)
	set(&d.KubeletReady, 20*time.Second)
	set(&d.Daemon, 10*time.Second)
	set(&d.RebaseFixed, 45*time.Second)
	set(&d.PodStart, 3*time.Second)
	set(&d.DrainTimeout, time.Hour)
	set(&d.Uncordon, 10*time.Minute)
	if d.Bandwidth <= 0 {
		d.Bandwidth = 50_000_000
	}
}

// Scaled returns durations that pass speed times as fast. Those that wait for controllers are left as they are.
func (d Durations) Scaled(speed float64) Durations {
	d.setDefaults()
	for _, v := range []*time.Duration{&d.Shutdown, &d.Boot, &d.KubeletReady, &d.Daemon, &d.RebaseFixed, &d.PodStart, &d.MonitorGrace} {
		*v = time.Duration(float64(*v) / speed)
	}
	d.Bandwidth = int64(float64(d.Bandwidth) * speed)
	return d
}

// Fleet is all machines of a cluster.
type Fleet struct {
	options FleetOptions
	images  *imageCache
	configs *configCache

	mu    sync.Mutex // guards hosts, serial and everything in a Host; never held across a request
	hosts map[string]*Host
	count int
	kept  map[string]bool // shared things that Storage has
}

// NewFleet returns a fleet without machines.
func NewFleet(o FleetOptions) *Fleet {
	o.setDefaults()
	o.RevertReboots = max(o.RevertReboots, 1)
	return &Fleet{options: o, images: newImageCache(), configs: newConfigCache(), hosts: map[string]*Host{}, kept: map[string]bool{}}
}

// HostSpec describes a machine.
type HostSpec struct {
	// Name is the machine's host name and the Node's name.
	Name string
	// Roles become labels node-role.kubernetes.io/<role>; master brings control-plane and a taint with it.
	Roles []string
	// Labels are the Node's further labels.
	Labels map[string]string
	// Zone becomes the label topology.kubernetes.io/zone.
	Zone string
	// BaseImage is the pull spec, by digest, of the operating system that the machine is installed with.
	BaseImage string
	// Config is the rendered MachineConfig that the machine was given by its ignition. Empty means that the daemon
	// takes the one of the node's pool as soon as it is rendered.
	Config string
	// KubeletVersion is the version that the Node reports; v1.31.3 by default.
	KubeletVersion string
}

// Install adds a machine that already runs its base image, booted once and converged. The kubelet registers its Node.
// The image is looked up with the installer's credentials.
func (f *Fleet) Install(spec HostSpec) error {
	info, err := f.images.pull(f.options.Transport("installer"), f.options.InstallKeychain, spec.BaseImage, nil)
	if err != nil {
		return fmt.Errorf("install %s: %w", spec.Name, err)
	}
	now := f.options.Clock.Now()
	h, err := f.add(spec)
	if err != nil {
		return fmt.Errorf("install %s: %w", spec.Name, err)
	}
	f.mu.Lock()
	h.staged = deployment(spec.BaseImage, info)
	record := h.bootInto(now)
	h.readyAt, h.daemonAt = now, now
	h.installed = true
	h.release(record)
	f.wake(h)
	return nil
}

// Provision adds a new machine and powers it on: it boots its boot image, pivots to its base image and reboots, then
// its kubelet registers the Node.
func (f *Fleet) Provision(spec HostSpec) error {
	h, err := f.add(spec)
	if err != nil {
		return fmt.Errorf("provision %s: %w", spec.Name, err)
	}
	f.mu.Lock()
	h.power, h.due = firstboot, f.options.Clock.Now().Add(f.options.Boot)
	h.release()
	f.wake(h)
	return nil
}

func (f *Fleet) add(spec HostSpec) (*Host, error) {
	if spec.Name == "" || spec.BaseImage == "" {
		return nil, fmt.Errorf("a machine needs a name and a base image")
	}
	spec.KubeletVersion = cmp.Or(spec.KubeletVersion, "v1.31.3")
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.hosts[spec.Name] != nil {
		return nil, fmt.Errorf("machine exists")
	}
	f.count++
	f.keepCount()
	h := &Host{fleet: f, spec: spec, index: f.count, layers: map[string]bool{}, edits: map[string]string{},
		pods: map[podKey]*pod{}}
	h.disk.config = spec.Config
	f.hosts[spec.Name] = h
	return h, nil
}

// Remove takes a machine away. Its Node stays until somebody deletes it.
func (f *Fleet) Remove(name string) {
	f.mu.Lock()
	h := f.hosts[name]
	if h == nil {
		f.mu.Unlock()
		return
	}
	delete(f.hosts, name)
	h.power, h.removed = off, true
	h.release(history.Node{Event: "shutdown", Message: "machine removed"})
	h.forget()
	f.wake(h)
}

// PowerOff cuts the power of a machine, if there is one of that name; PowerOn gives it back.
func (f *Fleet) PowerOff(name string) {
	if h := f.Host(name); h != nil {
		h.PowerOff()
	}
}

// PowerOn starts a machine that PowerOff stopped.
func (f *Fleet) PowerOn(name string) {
	if h := f.Host(name); h != nil {
		h.PowerOn()
	}
}

// Host returns a machine, nil where there is none of that name.
func (f *Fleet) Host(name string) *Host {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.hosts[name]
}

// Hosts returns all machines by name.
func (f *Fleet) Hosts() []*Host {
	f.mu.Lock()
	defer f.mu.Unlock()
	hosts := make([]*Host, 0, len(f.hosts))
	for _, name := range slices.Sorted(maps.Keys(f.hosts)) {
		hosts = append(hosts, f.hosts[name])
	}
	return hosts
}

// Names lists the machines.
func (f *Fleet) Names() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Sorted(maps.Keys(f.hosts))
}

// Has says whether there is a machine of that name.
func (f *Fleet) Has(name string) bool { return f.Host(name) != nil }

// WriteFile is [Host.WriteFile] of a machine by name.
func (f *Fleet) WriteFile(machine, path, content string) error {
	h := f.Host(machine)
	if h == nil {
		return fmt.Errorf("there is no machine %s", machine)
	}
	h.WriteFile(path, content)
	return nil
}

// RestoreFile is [Host.RestoreFile] of a machine by name.
func (f *Fleet) RestoreFile(machine, path string) error {
	h := f.Host(machine)
	if h == nil {
		return fmt.Errorf("there is no machine %s", machine)
	}
	h.RestoreFile(path)
	return nil
}

// Heartbeat says when a node's kubelet was last alive, and whether it is now. A machine that doesn't exist never was.
func (f *Fleet) Heartbeat(node string) (last time.Time, alive bool) {
	h := f.Host(node)
	if h == nil {
		return time.Time{}, false
	}
	now := f.options.Clock.Now()
	if h.kubelet(now) {
		return now, true
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return h.silentSince, false
}

// wake asks the driver to look at a machine.
func (f *Fleet) wake(h *Host) {
	if f.options.Wake != nil {
		f.options.Wake(KubeletName, h.spec.Name)
		f.options.Wake(DaemonName, h.spec.Name)
	}
}

func (f *Fleet) before(node, phase string) error {
	if f.options.Before == nil {
		return nil
	}
	return f.options.Before(node, phase)
}

// id returns a UUID made of the seed and what it identifies.
func (f *Fleet) id(parts ...any) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%d %q", f.options.Seed, fmt.Sprint(parts...)))
	sum[6], sum[8] = sum[6]&0x0f|0x40, sum[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", sum[0:4], sum[4:6], sum[6:8], sum[8:10], sum[10:16])
}
