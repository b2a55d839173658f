package release

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/layersim/layersim/controllers/layering"
)

// The names of the programs, which are also those of their processes.
const (
	Builder    = "machine-os-builder"
	Controller = "machine-config-controller"
)

// Programs are all of them.
var Programs = []string{Controller, Builder}

// Run says where the programs of a release find what they need.
type Run struct {
	// KubeConfig is the path of a kubeconfig for each program, by name. Required.
	KubeConfig map[string]string
	// Templates is the path of the folder "templates" of upstream's repository, of the same release. Required.
	Templates string
	// Scratch is an existing directory for the programs' home and temporary files. Required.
	Scratch string
	// Trust is the path of a file with CA certificates that the programs trust in place of the system's.
	Trust string
	// Version is the payload's; by default Release.Version. It must be the one of Parameters.
	Version string
	// Verbosity of the log of machine-config-controller; by default 2. The builder's is always 4.
	Verbosity int
}

// Process is a program to run.
type Process struct {
	// Name is the program's.
	Name string
	// Args come after the program.
	Args []string
	// Env is the whole environment. The user's is kept away, since proxies and credentials of its own would be used.
	Env []string
	// Lease is what the process holds while it leads. Delete it when a killed process is to have a successor at once.
	Lease client.ObjectKey
	// Ready is in the log once the process leads and works.
	Ready string

	scratch string
}

// Processes returns the programs of the release, in the order in which to start them.
func (r *Release) Processes(run Run) []Process {
	version := cmp.Or(run.Version, r.Version)
	verbosity := cmp.Or(run.Verbosity, 2)
	env := func(name string) []string {
		// Nothing but the standard locations: a build of Go programs needs no more, and mount is in one of them.
		list := []string{
			"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
			"HOME=" + run.Scratch, "TMPDIR=" + run.Scratch, "XDG_RUNTIME_DIR=" + run.Scratch,
			"KUBECONFIG=" + run.KubeConfig[name], // the builder ignores its flag
			"POD_NAME=" + name + "-0", "RELEASE_VERSION=" + version,
		}
		if run.Trust != "" {
			list = append(list, "SSL_CERT_FILE="+run.Trust, "SSL_CERT_DIR="+filepath.Join(run.Scratch, "none"))
		}
		return list
	}
	lease := func(name string) client.ObjectKey { return client.ObjectKey{Namespace: layering.Namespace, Name: name} }

	controller := []string{
		"start", "--kubeconfig=" + run.KubeConfig[Controller], "--templates=" + run.Templates, "--payload-version=" + version,
		"--resourcelock-namespace=" + layering.Namespace, "--metrics-listen-address=127.0.0.1:0", fmt.Sprintf("--v=%d", verbosity),
	}
	builder := []string{"start"}
	if r.Name == Main {
		controller = append(controller, "--streams-cache=") // a folder of /var by default
		builder = append(builder, "--metrics-listen-address=127.0.0.1:0")
	}
	return []Process{
		{Name: Controller, Args: controller, Env: env(Controller), Lease: lease(Controller), scratch: run.Scratch,
			Ready: "Starting MachineConfigController-NodeController"},
		{Name: Builder, Args: builder, Env: env(Builder), Lease: lease(Builder), scratch: run.Scratch,
			Ready: "Starting OSBuildController"},
	}
}

// Command returns the command that runs the program out of a folder. The process that it starts is the program itself, to
// which signals go. It sees folders of its own where it would change the machine's, see the package's hazards; the error says
// why that can't be.
func (p Process) Command(ctx context.Context, folder string) (*exec.Cmd, error) {
	program, err := filepath.Abs(filepath.Join(folder, p.Name))
	if err != nil {
		return nil, fmt.Errorf("run %s: %w", p.Name, err)
	}
	switch info, err := os.Stat(program); {
	case err != nil:
		return nil, fmt.Errorf("run %s: %w", p.Name, err)
	case info.IsDir() || info.Mode()&0o111 == 0:
		return nil, fmt.Errorf("run %s: %s is not a program", p.Name, program)
	}
	if p.scratch == "" {
		return nil, fmt.Errorf("run %s: no scratch directory", p.Name)
	}
	cmd, err := hiding(ctx, "/etc/docker", p.scratch, append([]string{program}, p.Args...))
	if err != nil {
		return nil, fmt.Errorf("run %s: keep it from changing /etc/docker of this machine: %w", p.Name, err)
	}
	cmd.Env = p.Env
	return cmd, nil
}

// hiding returns the command that runs a program whose changes below a directory nobody else sees.
func hiding(ctx context.Context, dir, scratch string, program []string) (*exec.Cmd, error) {
	layer, err := os.MkdirTemp(scratch, "etc-")
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, "/bin/sh", append([]string{"-c", hideScript, "sh", dir, layer}, program...)...)
	if err := isolate(cmd); err != nil {
		return nil, errors.Join(err, os.Remove(layer))
	}
	return cmd, nil
}

// hideScript runs in a mount namespace of its own. It covers a directory, or where there is none, the one above it with a
// layer that takes writes, and becomes the program.
const hideScript = `set -e
if [ -d "$1" ]; then
	mount -t tmpfs none "$1"
else
	above=$(dirname "$1")
	mount -t tmpfs none "$2"
	mkdir "$2/upper" "$2/work"
	(cd "$2" && mount -t overlay overlay -o "lowerdir=$above,upperdir=upper,workdir=work" "$above")
fi
shift 2
exec "$@"`

// hash is the end of what programs call themselves: a commit, or nothing of worth.
var hash = regexp.MustCompile(`-(was-not-built-properly|[0-9a-f]{7,40})(-dirty)?$`)

// ControllersVersion asks the programs in a folder what they call themselves, for Parameters.Controllers.
func ControllersVersion(ctx context.Context, folder string) (string, error) {
	program := filepath.Join(folder, Controller)
	out, err := exec.CommandContext(ctx, program, "version").Output()
	if err != nil {
		return "", fmt.Errorf("ask %s for its version: %w", program, err)
	}
	words := strings.Fields(string(bytes.TrimSpace(out)))
	if len(words) != 2 {
		return "", fmt.Errorf("ask %s for its version: it says %q", program, out)
	}
	return hash.ReplaceAllString(words[1], ""), nil
}
