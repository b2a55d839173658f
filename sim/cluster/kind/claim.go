package kind

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// ErrInUse says that another process runs scenarios on a cluster.
var ErrInUse = errors.New("another process runs scenarios on it; " + NameVariable + " chooses another cluster")

// claim is the right to run scenarios on a cluster, which one process at a time has. It is a locked file in the cluster's
// folder, which isn't empty while there is a run: so what a process left that was killed is not taken for what a cluster has.
type claim struct {
	file *os.File
	// underWay tells whether a run has begun and not ended; of a claim that was just made, that one was cut off.
	underWay bool
}

// claimRuns claims a cluster. The error is ErrInUse if another process has the claim. Who calls it holds the lock of the folder.
func claimRuns(dir string) (*claim, error) {
	file, err := os.OpenFile(filepath.Join(dir, "run"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	err = syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		err = ErrInUse
	}
	var info os.FileInfo
	if err == nil {
		info, err = file.Stat()
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return &claim{file, info.Size() > 0}, nil
}

// begin notes that a run begins, which leaves things on the cluster until it has ended.
func (c *claim) begin() error {
	if _, err := c.file.WriteAt([]byte("a run is under way\n"), 0); err != nil {
		return fmt.Errorf("note that a run begins: %w", err)
	}
	c.underWay = true
	return nil
}

// end notes that nothing is left.
func (c *claim) end() error {
	if err := c.file.Truncate(0); err != nil {
		return fmt.Errorf("note that a run has ended: %w", err)
	}
	c.underWay = false
	return nil
}

// release gives the claim back. A nil claim is nobody's.
func (c *claim) release() error {
	if c == nil {
		return nil
	}
	return c.file.Close()
}
