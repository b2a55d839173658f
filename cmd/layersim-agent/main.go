// Command layersim-agent is what runs inside the pods of a real cluster.
//
// As "layersim-agent registry" it is the image registry, and as "layersim-agent nodes" it runs simulated nodes.
//
// As rpm-ostree, rpm and cat in the same image it answers for a node:
//
//	kubectl exec -n layersim deploy/node-agents -- rpm-ostree status --node worker-1
//
// In a build pod it is all programs of the image. Its image has it as /bin/bash, which build pods start with one of two
// scripts. It is no shell, but does what they want done:
//
//	buildah bud, buildah push              builds layers and pushes them (sim/builder has how), with the credentials that are
//	                                       mounted, by the cluster's proxy and certificate authorities
//	machine-os-builder                     waits for the image's digest and writes it to a ConfigMap, with the pod's
//	  create-digest-configmap                service account
//
// What is not in the pod is the world's: whether package repositories answer, how long things take, and what goes wrong.
// Before each phase it asks layersim, by the channel of package sim/cluster/live/agent.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path"
	"strings"
	"syscall"

	"github.com/layersim/layersim/sim/cluster/live/agent"
)

// registryStorage is where the registry's pod has its volume.
const registryStorage = "/var/lib/layersim/registry"

// terminated is the exit code of a program that was ended by SIGTERM.
const terminated = 128 + int(syscall.SIGTERM)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args)
	stop()
	os.Exit(code)
}

func run(ctx context.Context, args []string) int {
	switch program := path.Base(args[0]); {
	case program == "layersim-agent" && len(args) == 2:
		switch args[1] {
		case "registry":
			return serve(ctx, args[1], func(ctx context.Context) error { return agent.Serve(ctx, agent.Given, registryStorage) })
		case "nodes":
			return nodes(ctx)
		}
	case program == "rpm-ostree", program == "rpm", program == "cat":
		return shell(program, args[1:])
	case program != "bash" && program != "sh":
	case len(args) != 3 || args[1] != "-c":
	case strings.Contains(args[2], "buildah "):
		return imageBuild(ctx)
	case strings.Contains(args[2], "create-digest-configmap"), strings.Contains(args[2], "oc create configmap"):
		return handOver(ctx, args[2])
	}
	fmt.Fprintf(os.Stderr, "%s: layersim's agent is no shell; it runs as layersim-agent registry or nodes, "+
		"and as /bin/bash -c with the scripts of build pods\n", args[0])
	return 127
}

// serve runs until it is told to end.
func serve(ctx context.Context, mode string, run func(context.Context) error) int {
	if err := run(ctx); err != nil && ctx.Err() == nil {
		fmt.Fprintf(os.Stderr, "layersim-agent %s: %v\n", mode, err)
		return 1
	}
	return 0
}
