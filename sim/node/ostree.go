package node

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// Status returns what `rpm-ostree status` prints on the machine, in a locale without bullets.
func (h *Host) Status() string {
	h.advance(h.fleet.options.Clock.Now())
	h.fleet.mu.Lock()
	defer h.fleet.mu.Unlock()
	return h.status()
}

// status is Status for a caller that holds the lock.
func (h *Host) status() string {
	var b strings.Builder
	if h.transaction != nil {
		fmt.Fprintf(&b, "State: busy\nTransaction: rebase --experimental ostree-unverified-registry:%s\n", h.transaction.image)
	} else {
		b.WriteString("State: idle\n")
	}
	b.WriteString("Deployments:\n")
	for i, d := range h.list() {
		if i > 0 {
			b.WriteString("\n")
		}
		mark := " "
		if d.Booted {
			mark = "*"
		}
		fmt.Fprintf(&b, "%s %s%s\n", mark, d.Transport, d.Image)
		fmt.Fprintf(&b, "%26s %s\n", "Digest:", d.Digest)
		fmt.Fprintf(&b, "%26s %s\n", "Version:", d.version())
	}
	return b.String()
}

func (d *Deployment) version() string {
	at := d.Timestamp.Format(time.RFC3339)
	if d.Version == "" {
		return at
	}
	return d.Version + " (" + at + ")"
}

// status is the part of `rpm-ostree status --json` that clients read.
type status struct {
	Deployments []jsonDeployment `json:"deployments"`
	Transaction []string         `json:"transaction"`
	Update      any              `json:"cached-update"`
}

type jsonDeployment struct {
	ID             string   `json:"id"`
	OSName         string   `json:"osname"`
	Serial         int      `json:"serial"`
	BaseChecksum   string   `json:"base-checksum,omitempty"`
	Checksum       string   `json:"checksum"`
	Version        string   `json:"version,omitempty"`
	Timestamp      int64    `json:"timestamp"`
	Booted         bool     `json:"booted"`
	Staged         bool     `json:"staged"`
	Origin         string   `json:"origin,omitempty"`
	Image          string   `json:"container-image-reference"`
	ImageDigest    string   `json:"container-image-reference-digest"`
	Packages       []string `json:"packages"`
	Requested      []string `json:"requested-packages"`
	RequestedLocal []string `json:"requested-local-packages"`
	Removals       []string `json:"requested-base-removals"`
	Unlocked       string   `json:"unlocked"`
}

// StatusJSON returns what `rpm-ostree status --json` prints on the machine.
func (h *Host) StatusJSON() string {
	s := status{Deployments: []jsonDeployment{}}
	if image := h.pulling(); image != "" {
		s.Transaction = []string{"rebase", "--experimental", "ostree-unverified-registry:" + image}
	}
	for i, d := range h.Deployments() {
		checksum := strings.TrimPrefix(d.Digest, "sha256:")
		s.Deployments = append(s.Deployments, jsonDeployment{
			ID: fmt.Sprintf("rhcos-%s.%d", checksum, i), OSName: "rhcos", Serial: i, Checksum: checksum,
			Version: d.Version, Timestamp: d.Timestamp.Unix(), Booted: d.Booted, Staged: d.Staged,
			Image: d.Transport + d.Image, ImageDigest: d.Digest, Packages: []string{}, Requested: []string{},
			RequestedLocal: []string{}, Removals: []string{}, Unlocked: "none",
		})
	}
	out, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return "error: " + err.Error() + "\n"
	}
	return string(out) + "\n"
}

// PackageList returns what `rpm -qa` prints on the machine, sorted.
func (h *Host) PackageList() string {
	var b strings.Builder
	for _, d := range h.Deployments() {
		if d.Booted {
			for _, name := range d.rpms {
				b.WriteString(name + "\n")
			}
		}
	}
	return b.String()
}

// pulling returns the image that a rebase is working on, empty when none is.
func (h *Host) pulling() string {
	h.fleet.mu.Lock()
	defer h.fleet.mu.Unlock()
	if h.transaction == nil {
		return ""
	}
	return h.transaction.image
}
