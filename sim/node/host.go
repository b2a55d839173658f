package node

import (
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/layersim/layersim/sim/history"
)

// power is what a machine is doing.
type power int

const (
	off       power = iota
	firstboot       // runs the boot image and pivots; due is when the firstboot service starts
	up              // runs its booted deployment
	stopping        // shuts down; due is when it is down
	booting         // due is when the kernel is up
)

// hang is how often a boot that hangs is tried again.
const hang = 30 * time.Second

// Host is a machine.
type Host struct {
	fleet *Fleet
	spec  HostSpec
	index int
	turn  sync.Mutex // taken before the fleet's lock

	power       power
	due         time.Time
	boots       int
	bootID      string
	readyAt     time.Time // when the kubelet of this boot is ready
	daemonAt    time.Time // when the daemon of this boot starts
	silentSince time.Time // when the kubelet stopped
	readyBoot   int       // the boot for which Ready was posted
	more        int       // reboots that follow the next boot at once
	installed   bool      // converged from the beginning
	removed     bool

	deployments []Deployment // booted first, then rollback
	staged      *Deployment
	layers      map[string]bool // layers in the local store, by digest
	transaction *transaction    // what rpm-ostree is doing

	disk   disk
	edits  map[string]string // files changed by hand, by path
	pods   map[podKey]*pod
	joined int // the boot in which the kubelet registered the Node

	keeping // for a Fleet with Storage
}

// disk is what the machine-config-daemon keeps on disk.
type disk struct {
	config     string // currentconfig
	image      string // currentimage
	files      *config
	pullSecret []byte // /etc/mco/internal-registry-pull-secret.json
	bootstrap  bool   // the annotations of the first boot were written
	rebootFrom int    // the boot that must end for config and image to take effect; 0 means none must
	failed     int    // rebases that failed since the last one that didn't
}

// transaction is a rebase that rpm-ostreed works on.
type transaction struct {
	image string
	info  *imageInfo
	done  time.Time
}

// Deployment is one of a machine's bootable systems.
type Deployment struct {
	// Image is the pull spec that it was made of, Transport how it was pulled: "ostree-unverified-registry:" or
	// "ostree-unverified-image:containers-storage:".
	Image     string
	Transport string
	// Digest is the image's, "sha256:...".
	Digest    string
	Version   string
	Timestamp time.Time // of the image's creation
	// Packages are its packages, by name.
	Packages []Package
	// Layered says that the image was built on a cluster.
	Layered bool

	Booted, Staged, Rollback bool

	rpms []string // Packages by their full names, as `rpm -qa` prints them
}

// Name returns the machine's name.
func (h *Host) Name() string { return h.spec.Name }

// Spec returns what the machine was made of.
func (h *Host) Spec() HostSpec { return h.spec }

// Boots says how many times the machine booted. The boot image's run is not counted.
func (h *Host) Boots() int {
	h.advance(h.fleet.options.Clock.Now())
	h.fleet.mu.Lock()
	defer h.fleet.mu.Unlock()
	return h.boots
}

// Deployments lists the machine's deployments as rpm-ostree does: staged, booted, rollback.
func (h *Host) Deployments() []Deployment {
	h.advance(h.fleet.options.Clock.Now())
	h.fleet.mu.Lock()
	defer h.fleet.mu.Unlock()
	return h.list()
}

// list lists the deployments. The caller holds the lock.
func (h *Host) list() []Deployment {
	var list []Deployment
	if h.staged != nil {
		d := *h.staged
		d.Staged = true
		list = append(list, d)
	}
	for i, d := range h.deployments {
		d.Booted, d.Rollback = i == 0, i > 0
		list = append(list, d)
	}
	return list
}

// Running says whether the machine runs its booted deployment at a time.
func (h *Host) Running(now time.Time) bool {
	h.advance(now)
	h.fleet.mu.Lock()
	defer h.fleet.mu.Unlock()
	return h.power == up
}

// kubelet says whether the machine's kubelet runs at a time.
func (h *Host) kubelet(now time.Time) bool {
	h.advance(now)
	h.fleet.mu.Lock()
	defer h.fleet.mu.Unlock()
	return h.power == up && !now.Before(h.readyAt)
}

// next says how long it takes until something is due on a machine that isn't fully up, for an agent that needs it up.
func (h *Host) next(now, upAt time.Time) time.Duration {
	h.fleet.mu.Lock()
	defer h.fleet.mu.Unlock()
	switch h.power {
	case off:
		return 0
	case up:
		return max(upAt.Sub(now), time.Millisecond)
	case firstboot:
		return max(h.due.Sub(now), hang) // the daemon pivots; until then nothing is due for others
	default:
		return max(h.due.Sub(now), time.Millisecond)
	}
}

// Reboot reboots the machine as a person or a power cut does; a staged deployment takes effect.
func (h *Host) Reboot(reason string) {
	h.reboot(h.fleet.options.Clock.Now(), reason)
	h.fleet.wake(h)
}

// PowerOff cuts the power: everything stops at once, and what was in memory is lost.
func (h *Host) PowerOff() {
	h.advance(h.fleet.options.Clock.Now())
	f := h.fleet
	f.mu.Lock()
	if h.power == off {
		f.mu.Unlock()
		return
	}
	records := h.ends("power lost")
	if h.power == up {
		h.silentSince = f.options.Clock.Now()
	}
	h.power, h.transaction = off, nil
	h.release(records...)
	f.wake(h)
}

// PowerOn starts a machine that is off.
func (h *Host) PowerOn() {
	f := h.fleet
	f.mu.Lock()
	if h.power == off && !h.removed {
		h.power, h.due = booting, f.options.Clock.Now().Add(f.options.Boot)
		if h.boots == 0 && h.staged == nil {
			h.power = firstboot
		}
	}
	h.release()
	f.wake(h)
}

// reboot begins a reboot.
func (h *Host) reboot(now time.Time, reason string) {
	h.fleet.mu.Lock()
	if h.power != up && h.power != firstboot {
		h.fleet.mu.Unlock()
		return
	}
	h.release(h.shutdown(now, reason)...)
}

// shutdown lets a machine go down. The caller holds the lock.
func (h *Host) shutdown(now time.Time, reason string) []history.Node {
	records := h.ends(reason)
	h.power, h.due, h.silentSince = stopping, now.Add(h.fleet.options.Shutdown), now
	h.transaction = nil
	return records
}

// ends is what is seen of a machine that stops to run. The caller holds the lock.
func (h *Host) ends(reason string) []history.Node {
	record := h.booted()
	record.Event, record.Message = "shutdown", reason
	records := []history.Node{record}
	if h.power == up {
		record.Event, record.Message = "notready", "kubelet stopped"
		records = append(records, record)
	}
	return records
}

// advance lets everything happen that is due.
func (h *Host) advance(now time.Time) {
	f := h.fleet
	// What is due happens once, whoever comes first; the fleet's lock alone doesn't do, as it isn't held while others are asked.
	h.turn.Lock()
	defer h.turn.Unlock()
	for {
		f.mu.Lock()
		if (h.power != stopping && h.power != booting) || now.Before(h.due) {
			f.mu.Unlock()
			return
		}
		if h.power == stopping {
			h.power, h.due = booting, h.due.Add(f.options.Boot)
			h.release()
			continue
		}
		f.mu.Unlock()
		hangs := f.before(h.spec.Name, "boot")
		f.mu.Lock()
		if hangs != nil {
			h.due = h.due.Add(hang)
			if h.due.Before(now) {
				h.due = now.Add(hang)
			}
			h.release()
			continue
		}
		records := []history.Node{h.bootInto(h.due)}
		if h.more > 0 {
			h.more--
			records = append(records, h.shutdown(h.readyAt, "Completing revert to the base image")...)
		}
		h.release(records...)
	}
}

// bootInto starts a kernel. The caller holds the lock.
func (h *Host) bootInto(at time.Time) history.Node {
	if h.staged != nil {
		h.deployments = slices.Insert(h.deployments, 0, *h.staged)
		h.deployments = h.deployments[:min(len(h.deployments), 2)]
		h.staged = nil
	}
	h.boots++
	h.bootID = h.fleet.id("boot", h.spec.Name, h.boots)
	h.power = up
	h.readyAt = at.Add(h.fleet.options.KubeletReady)
	h.daemonAt = h.readyAt.Add(h.fleet.options.Daemon)
	h.silentSince = at
	record := h.booted()
	record.Event, record.Status = "boot", h.status()
	if len(h.deployments) > 0 {
		record.RPMs = h.deployments[0].rpms
	}
	return record
}

// booted is a record about the booted deployment. The caller holds the lock.
func (h *Host) booted() history.Node {
	r := history.Node{Boot: h.boots, BootID: h.bootID}
	if len(h.deployments) > 0 {
		h.deployments[0].describe(&r)
	}
	return r
}

func (d *Deployment) describe(r *history.Node) {
	r.Image, r.Digest, r.Version, r.Layered = d.Image, d.Digest, d.Version, d.Layered
}

// ReadFile returns the content of a file of the machine's MachineConfig, or of one that WriteFile wrote.
func (h *Host) ReadFile(path string) (content string, ok bool) {
	h.fleet.mu.Lock()
	defer h.fleet.mu.Unlock()
	if content, ok := h.edits[path]; ok {
		return content, true
	}
	if h.disk.files == nil {
		return "", false
	}
	content, ok = h.disk.files.files[path]
	return content, ok
}

// WriteFile writes a file as somebody with a shell on the machine does. If it is a file of the machine's MachineConfig
// and the content differs, the configuration has drifted; writing the former content restores it.
func (h *Host) WriteFile(path, content string) {
	h.fleet.mu.Lock()
	h.edits[path] = content
	h.drifted("wrote " + path)
}

// RestoreFile gives a file the content that its MachineConfig wants; one that belongs to no MachineConfig it removes.
func (h *Host) RestoreFile(path string) {
	h.fleet.mu.Lock()
	delete(h.edits, path)
	h.drifted("restored " + path)
}

// drifted tells of a change by hand. The caller holds the lock, which is given back.
func (h *Host) drifted(what string) {
	h.release(history.Node{Event: "drift", Boot: h.boots, BootID: h.bootID, Message: what})
	h.fleet.wake(h)
}

// drift names the first file, by path, whose content isn't its MachineConfig's.
func (h *Host) drift() string {
	h.fleet.mu.Lock()
	defer h.fleet.mu.Unlock()
	if h.disk.files == nil {
		return ""
	}
	for _, path := range slices.Sorted(maps.Keys(h.edits)) {
		if want, ok := h.disk.files.files[path]; ok && want != h.edits[path] {
			return path
		}
	}
	return ""
}

// apply writes a config's files and the daemon's state to disk; files of the config that were changed by hand are
// overwritten. Where the machine is to reboot for it, more is the number of reboots after that.
func (h *Host) apply(c *config, image string, reboots bool, more int) {
	h.fleet.mu.Lock()
	defer h.release()
	for path := range h.edits {
		if _, ok := c.files[path]; ok {
			delete(h.edits, path)
		}
	}
	h.disk.config, h.disk.image, h.disk.files = c.name, image, c
	if reboots {
		h.disk.rebootFrom = h.boots
	}
	h.more = more
}

// look is a consistent copy of what agents need to know about a machine.
type look struct {
	disk
	boots       int
	bootID      string
	power       power
	due         time.Time
	readyAt     time.Time
	daemonAt    time.Time
	silentSince time.Time
	booted      Deployment
	staged      *Deployment
	transaction *transaction
	installed   bool
	readyBoot   int
	joined      int
}

func (h *Host) look(now time.Time) look {
	h.advance(now)
	h.fleet.mu.Lock()
	defer h.fleet.mu.Unlock()
	l := look{disk: h.disk, boots: h.boots, bootID: h.bootID, power: h.power, due: h.due, readyAt: h.readyAt,
		daemonAt: h.daemonAt, silentSince: h.silentSince, staged: h.staged, transaction: h.transaction,
		installed: h.installed, readyBoot: h.readyBoot, joined: h.joined}
	if len(h.deployments) > 0 {
		l.booted = h.deployments[0]
	}
	return l
}

// change changes a machine under the fleet's lock.
func (h *Host) change(f func(*Host)) {
	h.fleet.mu.Lock()
	f(h)
	h.release()
}

// happen changes a machine under the fleet's lock and tells of it, if the record has an event.
func (h *Host) happen(f func(*Host) history.Node) {
	h.fleet.mu.Lock()
	if record := f(h); record.Event != "" {
		h.release(record)
	} else {
		h.release()
	}
}
