package envtest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Version is the release of Kubernetes whose programs are run. hack/controlplane downloads or builds the same one.
const Version = "v1.37.2"

// folderVariable names the environment variable that moves the programs to another folder.
const folderVariable = "LAYERSIM_CONTROLPLANE"

// The programs of a control plane.
const (
	etcd              = "etcd"
	apiServer         = "kube-apiserver"
	controllerManager = "kube-controller-manager"
	scheduler         = "kube-scheduler"
)

// ErrNotBuilt says that the programs of the control plane are not on this machine.
var ErrNotBuilt = errors.New("the control plane is not on this machine: run make controlplane")

// Binaries returns the folder with the programs of the control plane: $LAYERSIM_CONTROLPLANE, otherwise
// layersim/controlplane/<Version> in $XDG_CACHE_HOME or $HOME/.cache. The error is ErrNotBuilt, with what is missing where,
// unless the folder can't be determined or read.
func Binaries() (dir string, err error) {
	if dir, err = folder(); err != nil {
		return "", fmt.Errorf("find the control plane: %w", err)
	}
	var missing []string
	for _, name := range []string{etcd, apiServer, controllerManager, scheduler} {
		switch info, err := os.Stat(filepath.Join(dir, name)); {
		case errors.Is(err, fs.ErrNotExist):
			missing = append(missing, name)
		case err != nil:
			return "", fmt.Errorf("find the control plane: %w", err)
		case info.IsDir() || info.Mode()&0o111 == 0:
			return "", fmt.Errorf("find the control plane: %s is not a program", filepath.Join(dir, name))
		}
	}
	if len(missing) > 0 {
		return "", fmt.Errorf("%w (%s has no %s)", ErrNotBuilt, dir, strings.Join(missing, ", "))
	}
	return dir, nil
}

func folder() (string, error) {
	if dir := os.Getenv(folderVariable); dir != "" {
		return filepath.Abs(dir)
	}
	cache := os.Getenv("XDG_CACHE_HOME")
	if cache == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", err
		}
		cache = filepath.Join(home, ".cache")
	}
	return filepath.Join(cache, "layersim", "controlplane", Version), nil
}
