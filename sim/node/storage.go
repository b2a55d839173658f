package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/layersim/layersim/sim/history"
)

// Storage is where a Fleet keeps its machines, so that they outlive it.
type Storage interface {
	// Save keeps a value, or forgets the key where it is nil. What it kept is there for a Fleet that is made as soon as this
	// one has ended, whenever that is. One that can't keep a value has to end the process, as a machine ends whose disk fails.
	Save(key string, value []byte)
	// Load returns all that is kept.
	Load() (map[string][]byte, error)
}

// The keys of a storage. What many machines have is kept once.
const (
	keyFleet  = "fleet"
	keyHost   = "host/"
	keyImage  = "image/"
	keyLayer  = "layer/"
	keyConfig = "config/"
)

// keeping is what a machine of a Fleet with Storage has beside. All of it is guarded by the fleet's lock; whoever holds
// telling, which is taken before that, tells.
type keeping struct {
	telling   sync.Mutex
	serial    int        // of the last record
	untold    []numbered // records that may not have been told
	saved     string     // what the storage has
	forgotten bool       // the storage has nothing any more
}

type numbered struct {
	Serial int          `json:"serial"`
	Record history.Node `json:"record"`
}

// release ends a change of a machine: it is saved, together with what is to be told of it, before anybody sees it; then the
// lock is given back and the records are told.
func (h *Host) release(records ...history.Node) {
	f := h.fleet
	for n := range records {
		records[n].Node = h.spec.Name
		if f.options.Storage != nil {
			h.serial++
			h.untold = append(h.untold, numbered{h.serial, records[n]})
		}
	}
	h.save()
	f.mu.Unlock()
	switch {
	case len(records) == 0:
	case f.options.Storage != nil:
		h.tell()
	case f.options.Observe != nil:
		for _, r := range records {
			f.options.Observe(r)
		}
	}
}

// tell tells what is untold. What was told is forgotten by the storage with the machine's next change only: who is told
// twice knows it by the serial.
func (h *Host) tell() {
	f := h.fleet
	h.telling.Lock()
	defer h.telling.Unlock()
	for {
		f.mu.Lock()
		if len(h.untold) == 0 {
			f.mu.Unlock()
			return
		}
		next := h.untold[0]
		f.mu.Unlock()
		switch {
		case f.options.Tell != nil:
			f.options.Tell(h.index, next.Serial, next.Record)
		case f.options.Observe != nil:
			f.options.Observe(next.Record)
		}
		f.mu.Lock()
		h.untold = h.untold[1:]
		f.mu.Unlock()
	}
}

// The forms in which things are kept.
type (
	hostState struct {
		Spec        HostSpec          `json:"spec"`
		Index       int               `json:"index"`
		Power       power             `json:"power"`
		Due         time.Time         `json:"due"`
		Boots       int               `json:"boots"`
		BootID      string            `json:"bootID"`
		ReadyAt     time.Time         `json:"readyAt"`
		DaemonAt    time.Time         `json:"daemonAt"`
		SilentSince time.Time         `json:"silentSince"`
		ReadyBoot   int               `json:"readyBoot"`
		Joined      int               `json:"joined"`
		More        int               `json:"more,omitempty"`
		Installed   bool              `json:"installed,omitempty"`
		Removed     bool              `json:"removed,omitempty"`
		Deployments []imageRef        `json:"deployments"`
		Staged      *imageRef         `json:"staged,omitempty"`
		Layers      []string          `json:"layers,omitempty"`
		Transaction *transactionState `json:"transaction,omitempty"`
		Disk        diskState         `json:"disk"`
		Edits       map[string]string `json:"edits,omitempty"`
		Pods        []podState        `json:"pods,omitempty"`
		Serial      int               `json:"serial"`
		Untold      []numbered        `json:"untold,omitempty"`
	}
	imageRef struct {
		Image  string `json:"image"`
		Digest string `json:"digest"`
	}
	transactionState struct {
		imageRef
		Done time.Time `json:"done"`
	}
	diskState struct {
		Config     string    `json:"config,omitempty"`
		Image      string    `json:"image,omitempty"`
		Files      types.UID `json:"files,omitempty"`
		PullSecret []byte    `json:"pullSecret,omitempty"`
		Bootstrap  bool      `json:"bootstrap,omitempty"`
		RebootFrom int       `json:"rebootFrom,omitempty"`
		Failed     int       `json:"failed,omitempty"`
	}
	podState struct {
		Namespace string    `json:"namespace"`
		Name      string    `json:"name"`
		UID       types.UID `json:"uid"`
		StartAt   time.Time `json:"startAt"`
		StopAt    time.Time `json:"stopAt"`
		Started   bool      `json:"started,omitempty"`
		Boot      int       `json:"boot"`
		Restarts  int32     `json:"restarts,omitempty"`
	}
	imageState struct {
		Digest   string            `json:"digest"`
		Version  string            `json:"version"`
		Created  time.Time         `json:"created"`
		Size     int64             `json:"size"`
		Packages []Package         `json:"packages"`
		Labels   map[string]string `json:"labels"`
		Layers   []string          `json:"layers"`
	}
	configState struct {
		ID      types.UID         `json:"id"`
		Name    string            `json:"name"`
		OSImage string            `json:"osImage"`
		Files   map[string]string `json:"files"`
		System  []byte            `json:"system"`
		Live    []byte            `json:"live"`
	}
	fleetState struct {
		Count int `json:"count"`
	}
)

// save keeps the machine, if anything of it changed. The caller holds the lock.
func (h *Host) save() {
	f := h.fleet
	if f.options.Storage == nil || h.forgotten {
		return
	}
	s := hostState{
		Spec: h.spec, Index: h.index, Power: h.power, Due: h.due, Boots: h.boots, BootID: h.bootID, ReadyAt: h.readyAt,
		DaemonAt: h.daemonAt, SilentSince: h.silentSince, ReadyBoot: h.readyBoot, Joined: h.joined, More: h.more,
		Installed: h.installed, Removed: h.removed, Layers: slices.Sorted(maps.Keys(h.layers)), Edits: h.edits,
		Serial: h.serial, Untold: h.untold,
		Disk: diskState{Config: h.disk.config, Image: h.disk.image, PullSecret: h.disk.pullSecret,
			Bootstrap: h.disk.bootstrap, RebootFrom: h.disk.rebootFrom, Failed: h.disk.failed},
	}
	ref := func(d *Deployment) imageRef {
		f.keepImage(d.Digest)
		return imageRef{d.Image, d.Digest}
	}
	for n := range h.deployments {
		s.Deployments = append(s.Deployments, ref(&h.deployments[n]))
	}
	if h.staged != nil {
		r := ref(h.staged)
		s.Staged = &r
	}
	if t := h.transaction; t != nil {
		f.keepImage(t.info.digest)
		s.Transaction = &transactionState{imageRef{t.image, t.info.digest}, t.done}
	}
	for _, layer := range s.Layers {
		f.keepOnce(keyLayer+layer, func() any { return f.images.packages(layer) })
	}
	if c := h.disk.files; c != nil {
		s.Disk.Files = c.id
		f.keepOnce(keyConfig+string(c.id), func() any {
			return configState{c.id, c.name, c.osImage, c.files, c.system[:], c.live[:]}
		})
	}
	for _, key := range slices.SortedFunc(maps.Keys(h.pods), func(a, b podKey) int { return strings.Compare(a.String(), b.String()) }) {
		p := h.pods[key]
		s.Pods = append(s.Pods, podState{key.Namespace, key.Name, p.uid, p.startAt, p.stopAt, p.started, p.boot, p.restarts})
	}
	value := f.marshal(s)
	if string(value) != h.saved {
		h.saved = string(value)
		f.options.Storage.Save(keyHost+h.spec.Name, value)
	}
}

// forget removes from the storage a machine that was removed.
func (h *Host) forget() {
	h.fleet.mu.Lock()
	defer h.fleet.mu.Unlock()
	h.forgotten = true
	// There may be a new one of the same name, which has its place.
	if s := h.fleet.options.Storage; s != nil && h.fleet.hosts[h.spec.Name] == nil {
		s.Save(keyHost+h.spec.Name, nil)
	}
}

// keepCount keeps how many machines there were. The caller holds the lock.
func (f *Fleet) keepCount() {
	if f.options.Storage != nil {
		f.options.Storage.Save(keyFleet, f.marshal(fleetState{f.count}))
	}
}

func (f *Fleet) keepImage(digest string) {
	f.keepOnce(keyImage+digest, func() any {
		i := f.images.known(digest)
		return imageState{i.digest, i.version, i.created, i.size, i.packages, i.labels, i.layers}
	})
}

// keepOnce keeps what never changes.
func (f *Fleet) keepOnce(key string, value func() any) {
	if !f.kept[key] {
		f.kept[key] = true
		f.options.Storage.Save(key, f.marshal(value()))
	}
}

// marshal writes plain data, which can't fail.
func (f *Fleet) marshal(value any) []byte {
	data, _ := json.Marshal(value)
	return data
}

// Restore brings back the machines that an earlier Fleet left in the storage, and tells what that may not have told. It
// comes before anything else. What was due in between happens as soon as somebody looks; agents have to be woken.
func (f *Fleet) Restore() error {
	if f.options.Storage == nil {
		return errors.New("restore machines: there is no storage")
	}
	all, err := f.options.Storage.Load()
	if err != nil {
		return fmt.Errorf("restore machines: %w", err)
	}
	var hosts []*Host
	f.mu.Lock()
	// The names of shared things sort behind those of hosts, so that two passes are needed.
	keys := slices.Sorted(maps.Keys(all))
	for _, key := range keys {
		if err = f.restoreShared(key, all[key]); err != nil {
			break
		}
	}
	for _, key := range keys {
		if err != nil || !strings.HasPrefix(key, keyHost) {
			continue
		}
		var h *Host
		if h, err = f.restoreHost(all[key]); err != nil {
			err = fmt.Errorf("%s: %w", key, err)
			continue
		}
		hosts = append(hosts, h)
		if !h.removed {
			f.hosts[h.spec.Name] = h
		}
	}
	f.mu.Unlock()
	if err != nil {
		return fmt.Errorf("restore machines: %w", err)
	}
	for _, h := range hosts {
		h.tell()
		if h.removed {
			h.forget()
		}
	}
	return nil
}

// restoreShared takes what many machines have. The caller holds the lock.
func (f *Fleet) restoreShared(key string, value []byte) error {
	kind, name, _ := strings.Cut(key, "/")
	var err error
	switch kind + "/" {
	case keyFleet + "/":
		var s fleetState
		err = json.Unmarshal(value, &s)
		f.count = s.Count
	case keyImage:
		var s imageState
		err = json.Unmarshal(value, &s)
		info := &imageInfo{digest: s.Digest, version: s.Version, created: s.Created, size: s.Size, packages: s.Packages,
			labels: s.Labels, layers: s.Layers}
		f.images.images[name] = info.complete()
	case keyLayer:
		var list []Package
		err = json.Unmarshal(value, &list)
		f.images.layers[name] = list
	case keyConfig:
		var s configState
		err = json.Unmarshal(value, &s)
		c := &config{id: s.ID, name: s.Name, osImage: s.OSImage, files: s.Files}
		copy(c.system[:], s.System)
		copy(c.live[:], s.Live)
		f.configs.configs[s.ID] = c
	case keyHost:
		return nil
	}
	if err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	f.kept[key] = true
	return nil
}

// restoreHost makes a machine of its state. The caller holds the lock.
func (f *Fleet) restoreHost(value []byte) (*Host, error) {
	var s hostState
	if err := json.Unmarshal(value, &s); err != nil {
		return nil, err
	}
	h := &Host{fleet: f, spec: s.Spec, index: s.Index, power: s.Power, due: s.Due, boots: s.Boots, bootID: s.BootID,
		readyAt: s.ReadyAt, daemonAt: s.DaemonAt, silentSince: s.SilentSince, readyBoot: s.ReadyBoot, joined: s.Joined,
		more: s.More, installed: s.Installed, removed: s.Removed, layers: map[string]bool{}, edits: map[string]string{},
		pods: map[podKey]*pod{}, keeping: keeping{serial: s.Serial, untold: s.Untold, saved: string(value)},
		disk: disk{config: s.Disk.Config, image: s.Disk.Image, pullSecret: s.Disk.PullSecret, bootstrap: s.Disk.Bootstrap,
			rebootFrom: s.Disk.RebootFrom, failed: s.Disk.Failed}}
	maps.Copy(h.edits, s.Edits)
	for _, layer := range s.Layers {
		h.layers[layer] = true
	}
	image := func(r imageRef) (*imageInfo, error) {
		if info := f.images.images[r.Digest]; info != nil {
			return info, nil
		}
		return nil, fmt.Errorf("image %s is missing", r.Digest)
	}
	for _, r := range s.Deployments {
		info, err := image(r)
		if err != nil {
			return nil, err
		}
		h.deployments = append(h.deployments, *deployment(r.Image, info))
	}
	if s.Staged != nil {
		info, err := image(*s.Staged)
		if err != nil {
			return nil, err
		}
		h.staged = deployment(s.Staged.Image, info)
	}
	if s.Transaction != nil {
		info, err := image(s.Transaction.imageRef)
		if err != nil {
			return nil, err
		}
		h.transaction = &transaction{image: s.Transaction.Image, info: info, done: s.Transaction.Done}
	}
	if s.Disk.Files != "" {
		if h.disk.files = f.configs.configs[s.Disk.Files]; h.disk.files == nil {
			return nil, fmt.Errorf("config %s is missing", s.Disk.Files)
		}
	}
	for _, p := range s.Pods {
		h.pods[podKey{Namespace: p.Namespace, Name: p.Name}] = &pod{uid: p.UID, startAt: p.StartAt, stopAt: p.StopAt,
			started: p.Started, boot: p.Boot, restarts: p.Restarts}
	}
	return h, nil
}
