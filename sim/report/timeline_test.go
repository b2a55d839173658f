package report

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/layersim/layersim/sim/history"
)

// What clients of a registry do as a matter of course is no news; what they are refused is.
func TestRegistryEntries(t *testing.T) {
	p := newTape(t, "x")
	p.begin("pull")
	ask := func(method, path string, status int) {
		p.rec.Add(history.Record{Registry: &history.Registry{Method: method, Path: path, Status: status, Caller: "node/n", Account: "a"}})
	}
	ask("GET", "/v2/", 401)
	ask("HEAD", "/v2/os/blobs/sha256:1", 404)
	ask("HEAD", "/v2/os/manifests/latest", 404)
	ask("POST", "/v2/os/blobs/uploads/-", 202)
	ask("POST", "/v2/os/blobs/uploads/-", 403)
	ask("PUT", "/v2/os/manifests/latest", 201)
	ask("DELETE", "/v2/os/manifests/latest", 202)
	var got []string
	for _, e := range Timeline(p.rec.History)[1:] {
		got = append(got, e.Subject+" "+e.Text)
	}
	want := []string{"registry/os POST blobs/uploads/-: 403 as account a", "registry/os image pushed: latest as account a", "registry/os image deleted: latest as account a"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// A failure shows wherever its record is: on an entry, between two, or behind the last.
func TestRows(t *testing.T) {
	entries := []Entry{{Seq: 2, Text: "two"}, {Seq: 5, Text: "five"}}
	var got []string
	for _, r := range rows(entries, []Failure{{Check: "c9", Seq: 9}, {Check: "c3", Seq: 3}, {Check: "c5", Seq: 5}}) {
		text := r.Text
		switch {
		case r.failure != nil:
			text = "failure " + r.failure.Check
		case r.cause:
			text += " cause"
		}
		got = append(got, text)
	}
	if diff := cmp.Diff([]string{"two", "failure c3", "five cause", "failure c5", "failure c9"}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestLinker(t *testing.T) {
	l := newLinker("s1", []row{{Entry: Entry{Seq: 2}}, {Entry: Entry{Seq: 3}, failure: &Failure{}}, {Entry: Entry{Seq: 5}}})
	for seq, want := range map[int64]string{1: "", 2: "s1-2", 3: "s1-2", 4: "s1-2", 5: "s1-5", 99: "s1-5"} {
		if got := l.row(seq); got != want {
			t.Errorf("record %d is told by %q, want %q", seq, got, want)
		}
	}
}

func TestSteps(t *testing.T) {
	r := failed(t)
	var got []string
	for _, s := range steps(r, linker{}) {
		got = append(got, strings.TrimSpace(s.Verdict+" "+s.Took))
	}
	if diff := cmp.Diff([]string{"passed 0s", "passed 2m39s", "failed 36m27s", "not reached"}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// A machine without power is down before anybody says so, and up again when its Node is Ready.
func TestPowerLoss(t *testing.T) {
	p := newTape(t, "x")
	p.cluster(1)
	p.begin("power")
	p.after("1m").rec.Add(history.Record{Node: &history.Node{Node: "layered-1", Event: "shutdown", Message: "power lost"}})
	p.after("40s").put("node-lifecycle", "Node", "layered-1", `{status: {conditions: [{type: Ready, status: "Unknown"}]}}`)
	p.after("1m").rec.Add(history.Record{Node: &history.Node{Node: "layered-1", Event: "boot", Boot: 2}})
	p.after("20s").put("kubelet", "Node", "layered-1", `{status: {conditions: [{type: Ready, status: "True"}]}}`)
	p.after("1m").mark("end", "")
	var got []string
	for _, s := range draw(p.rec.History, 0, nil, nil).nodes[0].spans {
		got = append(got, s.state+" "+(s.to-s.from).String())
	}
	want := []string{"base 1m0s", "rebooting 1m40s", "rebooting 20s", "base 1m0s"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
