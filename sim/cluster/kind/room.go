package kind

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

const (
	// instancesFile is the kernel's limit of inotify instances that one user may have.
	instancesFile = "/proc/sys/fs/inotify/max_user_instances"
	// instances is how many of them a cluster needs: its programs 29, and the kubelet one for each log that is followed.
	instances = 40
)

// Room says whether this machine lets so many clusters run side by side. Without inotify instances pods fail, and logs can't be
// read; see "Pod errors due to too many open files" among kind's known issues.
func Room(clusters int) error {
	text, err := os.ReadFile(instancesFile)
	if err != nil {
		return nil // such a system has no such limit
	}
	return room(clusters, strings.TrimSpace(string(text)))
}

func room(clusters int, limit string) error {
	number, err := strconv.Atoi(limit)
	if err != nil {
		return fmt.Errorf("read %s: %w", instancesFile, err)
	}
	if need := clusters * instances; need > number {
		return fmt.Errorf("fs.inotify.max_user_instances is %d, and %d clusters of kind side by side need %d: "+
			"run %d, or raise it (sysctl fs.inotify.max_user_instances=%d, as root)", number, clusters, need, number/instances, need)
	}
	return nil
}
