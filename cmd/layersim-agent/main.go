// Command layersim-agent is what runs inside the pods of a real cluster.
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
// Before each phase it asks layersim, which answers at the address of the cluster's proxy.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path"
	"strings"
	"syscall"
)

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
	case program != "bash" && program != "sh":
	case len(args) != 3 || args[1] != "-c":
	case strings.Contains(args[2], "buildah "):
		return imageBuild(ctx)
	case strings.Contains(args[2], "create-digest-configmap"), strings.Contains(args[2], "oc create configmap"):
		return handOver(ctx, args[2])
	}
	fmt.Fprintf(os.Stderr, "%s: layersim's agent is no shell; it runs as /bin/bash -c with the scripts of build pods\n", args[0])
	return 127
}
