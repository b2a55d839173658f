// Layersim runs scenarios of on-cluster image layering: on a simulated cluster in virtual time, on a real control plane, or on
// a real cluster. The real ones are in a program of their own, layersim-live, to which this one hands over.
//
//	layersim run PATH...        run scenarios and say which passed
//	layersim validate PATH...   find all mistakes in scenario files
//	layersim list [PATH...]     list scenarios; without a path those of folder scenarios
//	layersim explain [WORD]     explain the language, or one of its words
//	layersim schema             print the language as a JSON schema, for editors
//	layersim up, layersim down  make and remove a cluster of kind
//
// PATH is a file or a folder. Package sim/scenario is the manual of the language.
//
// Results go to standard output; progress and mistakes go to standard error. Exit status:
//
//	0  all scenarios passed, were skipped, or failed by defects of the controllers that are known
//	1  some failed
//	2  the command line or a scenario file is wrong
//	3  some could not be run, so that nothing is known of them; this comes before 1
//
// A first interrupt (Ctrl-C) ends the run in order, with status 3 and the reports of what was run; a second ends the
// process.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/layersim/layersim/sim/scenario"
)

// Exit statuses, kept stable: scripts rely on them.
const (
	statusFailed = 1
	statusUsage  = 2
	statusBroken = 3
)

func main() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(400) // a run makes much garbage in a short life, and keeps little
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// Once interrupted, the signals have their usual effect again.
	context.AfterFunc(ctx, stop)
	os.Exit(execute(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// status is an error that only sets the exit status: what it is about has been said.
type status int

func (s status) Error() string { return fmt.Sprintf("exit status %d", int(s)) }

// execute runs a command line and returns the exit status.
func execute(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := &cobra.Command{
		Use:           "layersim",
		Short:         "Run scenarios of on-cluster image layering on a simulated cluster",
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          cobra.NoArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.CompletionOptions.HiddenDefaultCmd = true
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.AddCommand(runCommand(), validateCommand(), listCommand(), explainCommand(), schemaCommand())
	root.AddCommand(liveCommands()...)

	err := root.ExecuteContext(ctx)
	var code status
	var mistakes scenario.Errors
	switch {
	case err == nil:
		return 0
	case errors.As(err, &code):
		return int(code)
	case errors.As(err, &mistakes):
		fmt.Fprintln(stderr, mistakes)
		fmt.Fprintf(stderr, "%s found\n", plural(len(mistakes), "mistake"))
		return statusUsage
	}
	fmt.Fprintf(stderr, "layersim: %v\n", err)
	var broken *brokenError
	if errors.As(err, &broken) {
		return statusBroken
	}
	return statusUsage
}

// brokenError is a failure of the program or its surroundings, not of its user or of a scenario.
type brokenError struct{ error }

func (e *brokenError) Unwrap() error { return e.error }

func plural(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}

func validateCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "validate PATH...",
		Short: "Find all mistakes in scenario files",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			scenarios, err := scenario.Load(args)
			if err != nil {
				return err
			}
			files := map[string]bool{}
			for _, s := range scenarios {
				files[s.Pos.File] = true
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s in %s, no mistakes\n", plural(len(scenarios), "scenario"), plural(len(files), "file"))
			return nil
		},
	}
}

func listCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "list [PATH...]",
		Short: "List scenarios; without a path those of folder scenarios",
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				args = []string{"scenarios"}
			}
			scenarios, err := scenario.Load(args)
			if err != nil {
				return err
			}
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			fmt.Fprintln(w, "NAME\tAREA\tSHOWS")
			for _, s := range scenarios {
				fmt.Fprintf(w, "%s\t%s\t%s\n", s.Name, s.Area, s.Shows)
			}
			return w.Flush()
		},
	}
}

func explainCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "explain [STEP|EXPECTATION]",
		Short: "Explain the language, or one of its words: an action, an expectation, a field or a kind",
		RunE: func(cmd *cobra.Command, args []string) error {
			// Two words of the language have a blank in them, so the arguments are one word.
			word := strings.Join(args, " ")
			text := scenario.Explain(word)
			if text == "" {
				message := fmt.Sprintf("%q is not a word of the language", word)
				if near := scenario.Suggest(word, scenario.Names()); near != "" {
					message += fmt.Sprintf(": did you mean %q?", near)
				} else {
					message += "; \"layersim explain\" lists them"
				}
				return errors.New(message)
			}
			fmt.Fprint(cmd.OutOrStdout(), text)
			return nil
		},
		ValidArgsFunction: func(_ *cobra.Command, _ []string, prefix string) ([]string, cobra.ShellCompDirective) {
			names := slices.DeleteFunc(scenario.Names(), func(name string) bool { return !strings.HasPrefix(name, prefix) })
			return names, cobra.ShellCompDirectiveNoFileComp
		},
	}
}

func schemaCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "schema",
		Short: "Print the language as a JSON schema, for editors",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			text, err := scenario.Schema()
			if err != nil {
				return &brokenError{err}
			}
			_, err = cmd.OutOrStdout().Write(text)
			return err
		},
	}
}
