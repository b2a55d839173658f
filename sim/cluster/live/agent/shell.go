package agent

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/layersim/layersim/sim/node"
	"github.com/layersim/layersim/sim/registry"
)

// NodesCommand is a command that is run on a machine. There is no shell: it is one of
//
//	rpm-ostree status [--json]
//	rpm -qa
//	cat FILE...
//
// each also behind `chroot /host`, as `oc debug` needs it.
type NodesCommand struct {
	Node      string   `json:"node"`
	Arguments []string `json:"arguments"`
}

// NodesOutput is what came of it.
type NodesOutput struct {
	Out  string `json:"out"`
	Err  string `json:"err,omitempty"`
	Code int    `json:"code"`
}

// stopped is a clock by which nothing is due: who only looks at machines changes nothing.
type stopped struct{}

func (stopped) Now() time.Time                  { return time.Time{} }
func (stopped) Since(t time.Time) time.Duration { return time.Time{}.Sub(t) }

// readOnly is a storage for who only looks.
type readOnly struct{ folder }

// Save implements [node.Storage].
func (readOnly) Save(string, []byte) {}

// Run runs the command on a machine that is kept in a folder, as it is now; the agent of the machines may be at work.
func (c NodesCommand) Run(path string) NodesOutput {
	var fleet *node.Fleet
	var err error
	for range 5 { // what belongs together is not written at once
		fleet = node.NewFleet(node.FleetOptions{Clock: stopped{}, Storage: readOnly{folder{Folder: registry.Folder(path)}}})
		if err = fleet.Restore(); err == nil {
			return c.on(fleet)
		}
	}
	return failed(1, "%v", err)
}

func failed(code int, format string, args ...any) NodesOutput {
	return NodesOutput{Err: "error: " + fmt.Sprintf(format, args...) + "\n", Code: code}
}

// on runs the command on a machine as it is: nothing becomes due by it.
func (c NodesCommand) on(fleet *node.Fleet) NodesOutput {
	names := fleet.Names()
	if c.Node == "" && len(names) == 1 {
		c.Node = names[0]
	}
	h := fleet.Host(c.Node)
	switch {
	case len(names) == 0:
		return failed(1, "there are no nodes")
	case c.Node == "":
		return failed(2, "which node? There are %s", strings.Join(names, ", "))
	case h == nil:
		return failed(1, "node %q not found; there are %s", c.Node, strings.Join(names, ", "))
	case !h.Running(time.Time{}):
		return failed(1, "node %s is down: it is off or boots", c.Node)
	}
	args := c.Arguments
	if len(args) > 2 && args[0] == "chroot" && args[1] == "/host" {
		args = args[2:]
	}
	switch {
	case slices.Equal(args, []string{"rpm-ostree", "status"}):
		return NodesOutput{Out: h.Status()}
	case slices.Equal(args, []string{"rpm-ostree", "status", "--json"}):
		return NodesOutput{Out: h.StatusJSON()}
	case slices.Equal(args, []string{"rpm", "-qa"}):
		return NodesOutput{Out: h.PackageList()}
	case len(args) > 1 && args[0] == "cat":
		var o NodesOutput
		for _, file := range args[1:] {
			content, ok := h.ReadFile(file)
			if !ok {
				o.Err += fmt.Sprintf("cat: %s: No such file or directory\n", file)
				o.Code = 1
			}
			o.Out += content
		}
		return o
	}
	return failed(127, "%q: a node of layersim knows only rpm-ostree status [--json], rpm -qa, and cat of files of its MachineConfig",
		strings.Join(args, " "))
}

// Shell is rpm-ostree, rpm or cat as a program in the pod of the agent: --node says on which machine, and may be left out where
// there is one. Given is the folder with what the pod was given. It returns the exit code.
func Shell(given string, args []string, stdout, stderr io.Writer) int {
	c := NodesCommand{Node: os.Getenv("NODE")}
	options, err := readOptions(given)
	if err != nil {
		_, _ = fmt.Fprintln(stderr, "error:", err) // where else
		return 1
	}
	for n := 0; n < len(args); n++ {
		value, joined := strings.CutPrefix(args[n], "--node=")
		switch {
		case joined:
			c.Node = value
		case args[n] == "--node" && n+1 < len(args):
			n++
			c.Node = args[n]
		default:
			c.Arguments = append(c.Arguments, args[n])
		}
	}
	o := c.Run(filepath.Join(NodesFolder, options.Run))
	_, outErr := io.WriteString(stdout, o.Out)
	_, errErr := io.WriteString(stderr, o.Err)
	if errors.Join(outErr, errErr) != nil {
		return 1
	}
	return o.Code
}
