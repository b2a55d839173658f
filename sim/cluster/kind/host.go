package kind

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// host lets happen to the node what package scenario has for faults on host. It implements fault.Host.
type host struct {
	ctx     context.Context
	cluster *Cluster
	// missing says that the image of build pods is away, paused that the node stands still.
	missing, paused bool
}

// away is what an image is called while it is missing.
const away = "layersim.io/away/"

// hostLimit bounds what is done to the node.
const hostLimit = time.Minute

func (h *host) Begin(do string) error {
	ctx, cancel := context.WithTimeout(h.ctx, hostLimit)
	defer cancel()
	switch do {
	case "pause":
		_, err := docker(ctx, "pause", h.cluster.Node)
		h.paused = err == nil
		return err
	case "api-server-restart":
		return h.killAPIServer(ctx)
	case "image-missing":
		// The node can't reach any registry that has it.
		err := h.rename(ctx, agentTag, away+agentTag)
		h.missing = err == nil
		return err
	}
	return fmt.Errorf("nothing is known of %q", do)
}

func (h *host) End(do string) error {
	// Also when the run was interrupted: the cluster may be kept.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(h.ctx), hostLimit)
	defer cancel()
	switch {
	case do == "pause" && h.paused:
		h.paused = false
		_, err := docker(ctx, "unpause", h.cluster.Node)
		return err
	case do == "image-missing" && h.missing:
		h.missing = false
		return h.rename(ctx, away+agentTag, agentTag)
	}
	return nil
}

// close takes back whatever a run left.
func (h *host) close() error { return errors.Join(h.End("pause"), h.End("image-missing")) }

// killAPIServer kills the container; its static pod's kubelet starts another.
func (h *host) killAPIServer(ctx context.Context) error {
	crictl := []string{"crictl", "--timeout", "1m"} // not two seconds, as by default
	ids, err := h.cluster.Exec(ctx, append(crictl, "ps", "--quiet", "--name", "^kube-apiserver$")...)
	if err != nil {
		return err
	}
	found := strings.Fields(ids)
	if len(found) == 0 {
		return errors.New("no kube-apiserver runs")
	}
	_, err = h.cluster.Exec(ctx, append(append(crictl, "stop", "--timeout", "0"), found...)...)
	return err
}

// rename gives an image another name.
func (h *host) rename(ctx context.Context, from, to string) error {
	images := []string{"ctr", "--namespace", "k8s.io", "images"}
	if _, err := h.cluster.Exec(ctx, append(images, "tag", "--force", from, to)...); err != nil {
		return err
	}
	_, err := h.cluster.Exec(ctx, append(images, "remove", from)...)
	return err
}
