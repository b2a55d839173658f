package kind

import "testing"

func TestRoom(t *testing.T) {
	for _, c := range []struct {
		clusters   int
		limit, err string
	}{
		{3, "128", ""},
		{4, "160", ""},
		{4, "128", "fs.inotify.max_user_instances is 128, and 4 clusters of kind side by side need 160: " +
			"run 3, or raise it (sysctl fs.inotify.max_user_instances=160, as root)"},
		{1, "many", `read /proc/sys/fs/inotify/max_user_instances: strconv.Atoi: parsing "many": invalid syntax`},
	} {
		got := ""
		if err := room(c.clusters, c.limit); err != nil {
			got = err.Error()
		}
		if got != c.err {
			t.Errorf("%d clusters, limit %s: %q, want %q", c.clusters, c.limit, got, c.err)
		}
	}
}
