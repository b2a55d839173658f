package main

import (
	"context"
	"fmt"
	"os"

	"github.com/go-logr/logr"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/layersim/layersim/sim/cluster/live/agent"
)

// nodes runs simulated nodes.
func nodes(ctx context.Context) int {
	return serve(ctx, "nodes", func(ctx context.Context) error {
		log.SetLogger(logr.Discard()) // what goes wrong with components is in the history; what does with watches is logged
		config, err := clientcmd.BuildConfigFromFlags("", os.Getenv("KUBECONFIG"))
		if err != nil {
			return fmt.Errorf("find the API server: %w", err)
		}
		config.QPS, config.UserAgent = -1, "node-agents"
		proxy, err := address("HTTPS_PROXY")
		if err != nil {
			return err
		}
		return agent.RunNodes(ctx, agent.Given, config, proxy, func(err error) {
			fmt.Fprintln(os.Stderr, "layersim-agent nodes:", err)
			os.Exit(1)
		})
	})
}

// shell is a program of a simulated node, by name.
func shell(program string, args []string) int {
	return agent.Shell(agent.Given, append([]string{program}, args...), os.Stdout, os.Stderr)
}
