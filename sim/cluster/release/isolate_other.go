//go:build !linux

package release

import (
	"errors"
	"os/exec"
)

func isolate(*exec.Cmd) error { return errors.New("mount namespaces need Linux") }
