//go:build live

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/spf13/cobra"

	"github.com/layersim/layersim/sim/cluster/kind"
	"github.com/layersim/layersim/sim/cluster/live"
	"github.com/layersim/layersim/sim/cluster/live/agent"
)

// debugCommand runs a command on a node of a cluster of kind.
func debugCommand() *cobra.Command {
	cluster := kind.ClusterName(0)
	cmd := &cobra.Command{
		Use: debugUse, Short: debugShort,
		Long: debugShort + `.

  layersim debug node/worker-1 -- rpm-ostree status
  layersim debug node/worker-1 -- rpm-ostree status --json
  layersim debug node/worker-1 -- rpm -qa
  layersim debug node/worker-1 -- cat /etc/node-role

The nodes are those of the scenario that runs on the cluster, or of the last one on a cluster that was kept: by
layersim up, or by run --cluster kind --keep.`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			name, ok := strings.CutPrefix(args[0], "node/")
			if !ok || name == "" {
				return fmt.Errorf("%q is not a node: node/NAME", args[0])
			}
			if len(args) == 1 {
				return fmt.Errorf("say what to run on %s: layersim debug %s -- rpm-ostree status", name, args[0])
			}
			config, err := kind.Config(cluster)
			if errors.Is(err, fs.ErrNotExist) {
				return &brokenError{fmt.Errorf("there is no cluster %s: `layersim up` makes one, and `layersim run --cluster kind --keep` "+
					"leaves one with nodes", cluster)}
			}
			if err != nil {
				return &brokenError{err}
			}
			output, err := live.OnNode(cmd.Context(), config, agent.NodesCommand{Node: name, Arguments: args[1:]})
			if err != nil {
				return &brokenError{fmt.Errorf("node %s of cluster %s: %w", name, cluster, err)}
			}
			fmt.Fprint(cmd.OutOrStdout(), output.Out)
			fmt.Fprint(cmd.ErrOrStderr(), output.Err)
			if output.Code != 0 {
				return status(output.Code)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&cluster, "cluster", cluster, "the cluster's `NAME`")
	return cmd
}
