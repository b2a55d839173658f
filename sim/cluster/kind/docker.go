package kind

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"strings"
)

// docker runs one command of Docker's client, as kind itself does, and returns its output without white space around it.
func docker(ctx context.Context, arguments ...string) (string, error) {
	var stdout, stderr bytes.Buffer
	command := exec.CommandContext(ctx, "docker", arguments...)
	command.Stdout, command.Stderr = &stdout, &stderr
	if err := command.Run(); err != nil {
		if errors.Is(err, exec.ErrNotFound) || strings.Contains(stderr.String(), "Cannot connect to the Docker daemon") {
			err = errors.Join(ErrNoEngine, err)
		}
		if message := strings.TrimSpace(stderr.String()); message != "" && ctx.Err() == nil {
			err = fmt.Errorf("%w: %s", err, message)
		}
		return "", fmt.Errorf("docker %s: %w", arguments[0], errors.Join(ctx.Err(), err))
	}
	return strings.TrimSpace(stdout.String()), nil
}

// container is one that belongs to a cluster of kind, running or not.
type container struct {
	id, name string
	running  bool
	mounts   []string
}

// containers returns those of the cluster.
func containers(ctx context.Context, cluster string) ([]container, error) {
	ids, err := docker(ctx, "ps", "--all", "--quiet", "--no-trunc", "--filter", "label=io.x-k8s.kind.cluster="+cluster)
	if err != nil {
		return nil, err
	}
	var found []container
	for _, id := range strings.Fields(ids) {
		const format = `{{.Name}} {{.State.Running}}{{range .Mounts}} {{.Source}}{{end}}`
		line, err := docker(ctx, "inspect", "--type=container", "--format="+format, id)
		if err != nil {
			return nil, err
		}
		fields := strings.Fields(line)
		if len(fields) < 2 {
			return nil, fmt.Errorf("docker inspect: unexpected answer %q", line)
		}
		found = append(found, container{
			id: id, name: strings.TrimPrefix(fields[0], "/"), running: fields[1] == "true", mounts: fields[2:],
		})
	}
	return found, nil
}

// Gateway returns the address of this machine in the cluster's Docker network, at which pods reach it.
func (c *Cluster) Gateway(ctx context.Context) (string, error) {
	address, err := docker(ctx, "inspect", "--type=container",
		"--format={{(index .NetworkSettings.Networks \""+networkName+"\").Gateway}}", c.Node)
	if err == nil && net.ParseIP(address) == nil {
		err = fmt.Errorf("%q is not an address", address)
	}
	if err != nil {
		return "", fmt.Errorf("gateway of cluster %s: %w", c.Name, err)
	}
	return address, nil
}

// network returns the identity of the network with that name, "" when there is none, and how many containers are in it.
func network(ctx context.Context, name string) (id string, members int, err error) {
	id, err = docker(ctx, "network", "ls", "--quiet", "--no-trunc", "--filter", "name=^"+name+"$")
	if err != nil || id == "" {
		return "", 0, err
	}
	in, err := docker(ctx, "ps", "--all", "--quiet", "--filter", "network="+id)
	return id, len(strings.Fields(in)), err
}
