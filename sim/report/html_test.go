package report

import (
	"bytes"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/layersim/layersim/sim/history"
)

func html(t *testing.T, s *Suite) string {
	t.Helper()
	var b bytes.Buffer
	if err := HTML(&b, s); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestHTML(t *testing.T) {
	page := html(t, suite(t))
	if again := html(t, suite(t)); again != page {
		t.Errorf("two reports of one run differ:\n%s", cmp.Diff(page, again))
	}
	for _, want := range []string{
		"<title>layersim: 1 passed, 1 failed, 1 skipped, 1 could not run</title>",
		`<li class="badge failed">1 failed</li>`,
		`<a href="#s2">secret-rotation/revoked</a>`,
		"four attempts, then &lt;Failed&gt;",
		"pool &lt;master&gt; is not ready",
		"repo &#39;appstream&#39;: &lt;timeout&gt;",
		"a node that may not pull degrades &amp; recovers",
		`<a href="#s2-f1">at 2h19m06.2s, revision 281</a>`,
		`<tr id="s2-f2" data-k="failure"`,
		`class="bad cause"`,
		`<span class="badge not reached">not reached</span>`,
		`6 times until 2h19m06.2s`,
		"boot 2: layered image os-image@" + twoDigest,
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	for _, state := range []string{"met", "failed", "fault", "updated", "updating", "building", "succeeded", "pending", "base", "layered", "targeted",
		"draining", "rebasing", "rebooting", "finishing", "degraded"} {
		if !strings.Contains(page, `<rect class="c-`+state+`" x=`) {
			t.Errorf("no bar is %s", state)
		}
	}
	references(t, page)
}

// references checks that a page stands alone, and that each link within it leads somewhere, and ids are unique.
func references(t *testing.T, page string) {
	t.Helper()
	ids := map[string]bool{}
	for _, m := range regexp.MustCompile(` id="([^"]*)"`).FindAllStringSubmatch(page, -1) {
		if ids[m[1]] {
			t.Errorf("id %s is there twice", m[1])
		}
		ids[m[1]] = true
	}
	links := regexp.MustCompile(` href="([^"]*)"`).FindAllStringSubmatch(page, -1)
	for _, m := range links {
		if !strings.HasPrefix(m[1], "#") || !ids[m[1][1:]] {
			t.Errorf("link to %q, which is not there", m[1])
		}
	}
	if len(links) < 10 {
		t.Errorf("only %d links", len(links))
	}
	for _, outside := range []string{" src=", "@import", "<link", "ZgotmplZ", "NaN", "Inf"} {
		if strings.Contains(page, outside) {
			t.Errorf("the page holds %q", outside)
		}
	}
	if m := regexp.MustCompile(`url\([^#)]*\)`).FindString(page); m != "" {
		t.Errorf("the page loads %s", m)
	}
}

// A big run must give a small page, that says what it leaves out, and keeps what failed.
func TestHTMLOfManyNodes(t *testing.T) {
	r := passed(t, 400)
	last := r.History.Records[len(r.History.Records)-1]
	r.Verdict = Failed
	r.Failures = []Failure{{Check: "invariant I1", Message: "m", Revision: last.Revision, VirtualSeconds: r.VirtualSeconds, Seq: last.Seq - 200}}
	page := html(t, &Suite{Scenarios: []*Result{r}})
	if len(page) > 300_000 {
		t.Errorf("%d bytes", len(page))
	}
	for _, want := range []string{"400 nodes, by phase", "entries that matter least are left out", `id="s1-f1"`, `<path class="c-layered" d="M`, "begins: ask for an image"} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	references(t, page)
}

// What a log, a name or a message holds must not become markup.
func TestHTMLEscapes(t *testing.T) {
	const evil = `"><script>alert(1)</script>`
	p := newTape(t, evil)
	p.cluster(1)
	p.begin(evil)
	p.mark("did", evil)
	p.put(evil, "Secret", evil[2:], `{data: {a: Yg==}}`)
	p.rec.Add(history.Record{Fault: &history.Fault{Name: evil, Event: "armed", Message: evil}})
	p.rec.Add(history.Record{Node: &history.Node{Node: evil, Event: "boot", Image: evil}})
	p.rec.Add(history.Record{Component: &history.Component{Name: evil, Event: "panic", Message: evil}})
	page := html(t, &Suite{Cluster: evil, Scenarios: []*Result{{Name: evil, File: evil, Verdict: Failed, History: p.rec.History,
		Failures: []Failure{{Check: evil, Message: evil, Seq: p.seq()}}}}})
	if n := strings.Count(page, "<script"); n != 1 {
		t.Errorf("%d scripts, want the page's own only", n)
	}
	if strings.Contains(page, `"">`) || strings.Contains(page, "Yg==") {
		t.Error("a quote ends an attribute, or a Secret's value is shown")
	}
}

func TestLanes(t *testing.T) {
	r := failed(t)
	d := draw(r.History, 0, Timeline(r.History), map[int]bool{2: true})
	show := func(l *lane) (text []string) {
		for _, s := range l.spans {
			text = append(text, fmt.Sprintf("%s %s", s.state, s.to-s.from))
		}
		for _, m := range l.marks {
			text = append(text, m.state)
		}
		return text
	}
	lanes := map[string][]string{}
	for _, l := range slices.Concat([]*lane{&d.steps, &d.parts, &d.images}, d.faults, d.pools, d.builds, d.nodes) {
		lanes[short(l.name)] = show(l)
	}
	want := map[string][]string{
		"scenario":               {"met 0s", "met 2m39s", "failed 36m27.2s", "did", "did", "did", "did"},
		"components":             {"warn", ""},
		"registry":               {"good", "bad"},
		"repository unreachable": {"fault 2h2m39s", "fired", "fired", "fired", "fired"},
		"pool layered":           {"updated 2m39s", "degraded 2h6m18s", "updating 10m9.2s", "degraded 20m0s"},
		"build layered-01234567": {"new 5s", "prepared 2s", "building 2m22s", "failed 2h6m23s"},
		"build layered-fedcba98": {"new 5s", "prepared 2s", "building 6m6s", "succeeded 30m9.2s"},
		"attempts":               {"pending 2s", "succeeded 6m0s"},
		"layered-1": {"base 2h9m2s", "targeted 400ms", "draining 30.2s", "rebasing 2m0s", "rebooting 2m50s", "finishing 3s",
			"layered 24m40.6s", "bootlayered"},
		"layered-2": {"base 2h15m35.6s", "targeted 400ms", "draining 30.2s", "rebasing 30s", "degraded 22m30s"},
	}
	if diff := cmp.Diff(want, lanes); diff != "" {
		t.Errorf("lanes (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"layered-3", "worker-1"}, d.quiet); diff != "" {
		t.Errorf("nodes that nothing happened to (-want +got):\n%s", diff)
	}
}

func TestScale(t *testing.T) {
	times := []time.Duration{time.Minute, 2 * time.Minute, 10 * time.Hour, 10*time.Hour + time.Minute, 20 * time.Hour}
	s := newScale(times, 20*time.Hour, 100, 1100)
	last := -1.0
	for at := time.Duration(0); at <= 20*time.Hour; at += time.Minute {
		x := s.pos(at)
		if x <= last || x < 100 || x > 1100 {
			t.Fatalf("%s is at %v after %v", at, x, last)
		}
		last = x
	}
	if s.pos(0) != 100 || last != 1100 {
		t.Errorf("from %v to %v", s.pos(0), last)
	}
	// Ten hours take less than 600 times the room of a minute.
	if minute, hours := s.pos(2*time.Minute)-s.pos(time.Minute), s.pos(10*time.Hour)-s.pos(2*time.Minute); hours > 300*minute {
		t.Errorf("a minute takes %v, ten hours %v", minute, hours)
	}
	if n := len(s.idle()); n != 2 {
		t.Errorf("%d idle stretches", n)
	}
	ticks := s.ticks(66)
	for n := 1; n < len(ticks); n++ {
		if s.pos(ticks[n])-s.pos(ticks[n-1]) < 66 {
			t.Errorf("ticks %s and %s are too close", ticks[n-1], ticks[n])
		}
	}
	if len(ticks) < 5 {
		t.Errorf("ticks %v", ticks)
	}
	if x := newScale(nil, 0, 100, 1100).pos(0); x != 100 {
		t.Errorf("a run of no time is at %v", x)
	}
}

func TestNatural(t *testing.T) {
	names := []string{"worker-10", "worker-9", "layered-2", "worker-1", "layered", "layered-11"}
	slices.SortFunc(names, natural)
	if diff := cmp.Diff([]string{"layered", "layered-2", "layered-11", "worker-1", "worker-9", "worker-10"}, names); diff != "" {
		t.Error(diff)
	}
}

func TestBand(t *testing.T) {
	got := band([]float64{10, 10, 10}, []float64{4, 4, 2}, 0, 5)
	if want := "M0 4H10V2H15V10H0z"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
