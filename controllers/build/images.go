package build

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	mcfgv1 "github.com/openshift/api/machineconfiguration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/layersim/layersim/controllers/layering"
)

// grace is how long an image must have been out of use before it is deleted, so that a controller that hasn't seen the
// end of its MachineOSBuild yet doesn't send a node after it.
const grace = 30 * time.Second

// postponed is how long to wait for a build of another MachineOSConfig that pushes into the same repository.
const postponed = time.Minute

// pushed notes one image that a build pushed, or may have pushed.
type pushed struct {
	// UID and Build name the MachineOSBuild.
	UID   string `json:"-"`
	Build string `json:"build"`
	// Tag is what the build pushes to; Digest is known once it has succeeded.
	Tag    string `json:"tag"`
	Digest string `json:"digest,omitempty"`
	// Secret is the push secret's name.
	Secret string `json:"secret"`
	// Waiting says that the MachineOSBuild is gone and the image is to be deleted.
	Waiting bool `json:"waiting,omitempty"`
	// Unused is since when nothing was seen to use a waiting image, RFC 3339.
	Unused string `json:"unused,omitempty"`
}

// ledger is the note of a MachineOSConfig's images: the ConfigMap pushed-images-<config> with one key for each
// MachineOSBuild's UID. It is no ephemeral object and has no owner: it outlives the MachineOSConfig as long as images
// are left.
type ledger struct {
	config string
	object *corev1.ConfigMap // nil if it doesn't exist
	images []*pushed         // by UID
}

func ledgerName(config string) string { return "pushed-images-" + config }

// readLedger takes a ledger out of its ConfigMap.
func readLedger(object *corev1.ConfigMap) ledger {
	l := ledger{config: object.Labels[PushedImages], object: object}
	for uid, text := range object.Data {
		image := &pushed{UID: uid}
		if json.Unmarshal([]byte(text), image) == nil && image.Tag != "" { // what isn't ours is left alone
			l.images = append(l.images, image)
		}
	}
	slices.SortFunc(l.images, func(a, b *pushed) int { return cmp.Compare(a.UID, b.UID) })
	return l
}

// ledgersIn returns all ledgers of a namespace, as far as they can be read.
func ledgersIn(ctx context.Context, reader client.Reader, namespace string) []ledger {
	list := &corev1.ConfigMapList{}
	if err := reader.List(ctx, list, client.InNamespace(namespace), client.HasLabels{PushedImages}); err != nil {
		return nil
	}
	var out []ledger
	for i := range list.Items {
		out = append(out, readLedger(&list.Items[i]))
	}
	return out
}

// ledger reads the MachineOSConfig's ledger from the server.
func (p *pass) ledger(ctx context.Context) (ledger, error) {
	object := &corev1.ConfigMap{}
	key := client.ObjectKey{Namespace: p.options.Namespace, Name: ledgerName(p.name)}
	if err := p.live.Get(ctx, key, object); apierrors.IsNotFound(err) {
		return ledger{config: p.name}, nil
	} else if err != nil {
		return ledger{}, fmt.Errorf("get configmap %s: %w", key.Name, err)
	}
	return readLedger(object), nil
}

// save writes a ledger's images, creating the ConfigMap for the first and deleting it after the last.
func (p *pass) save(ctx context.Context, l ledger) error {
	data := map[string]string{}
	for _, image := range l.images {
		text, err := json.Marshal(image)
		if err != nil {
			return fmt.Errorf("note image of machineosbuild %s: %w", image.Build, err)
		}
		data[image.UID] = string(text)
	}
	switch {
	case l.object == nil && len(data) == 0:
		return nil
	case l.object == nil:
		object := &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{
				Namespace: p.options.Namespace, Name: ledgerName(p.name), Labels: map[string]string{PushedImages: p.name},
			},
			Data: data,
		}
		if err := p.client.Create(ctx, object); err != nil {
			return fmt.Errorf("create configmap %s: %w", object.Name, err)
		}
		return nil
	case len(data) == 0:
		err := p.client.Delete(ctx, l.object, client.Preconditions{UID: &l.object.UID, ResourceVersion: &l.object.ResourceVersion})
		if client.IgnoreNotFound(err) != nil {
			return fmt.Errorf("delete configmap %s: %w", l.object.Name, err)
		}
		return nil
	}
	return p.patch(ctx, l.object, func() { l.object.Data = data })
}

// notePush notes that a build is about to push.
func (p *pass) notePush(ctx context.Context, build *mcfgv1.MachineOSBuild) error {
	return p.note(ctx, build, "")
}

// noteDigest notes what a build has pushed.
func (p *pass) noteDigest(ctx context.Context, build *mcfgv1.MachineOSBuild, digest string) error {
	return p.note(ctx, build, digest)
}

func (p *pass) note(ctx context.Context, build *mcfgv1.MachineOSBuild, digest string) error {
	l, err := p.ledger(ctx)
	if err != nil {
		return err
	}
	var image *pushed
	for _, known := range l.images {
		if known.UID == string(build.UID) {
			image = known
		}
	}
	if image == nil {
		image = &pushed{UID: string(build.UID)}
		l.images = append(l.images, image)
	}
	image.Build, image.Tag = build.Name, string(build.Spec.RenderedImagePushSpec)
	image.Secret = build.Annotations[layering.RenderedPushSecret]
	if digest != "" {
		image.Digest = digest
	}
	return p.save(ctx, l)
}

// prune deletes images whose builds are gone, once nothing needs them.
func (p *pass) prune(ctx context.Context) error {
	l, err := p.ledger(ctx)
	if err != nil {
		return err
	}
	var waiting []*pushed
	for _, image := range l.images {
		image.Waiting = !p.exists(image.UID)
		if image.Waiting {
			waiting = append(waiting, image)
		} else {
			image.Unused = ""
		}
	}
	var errs []error
	if len(waiting) > 0 {
		users, err := p.users(ctx)
		if err != nil {
			return err
		}
		for _, image := range waiting {
			done, err := p.pruneImage(ctx, image, users)
			if done {
				l.images = slices.DeleteFunc(l.images, func(other *pushed) bool { return other == image })
			}
			errs = append(errs, err)
		}
	}
	return errors.Join(append(errs, p.save(ctx, l))...)
}

// exists says whether a MachineOSBuild is still there.
func (p *pass) exists(uid string) bool {
	same := func(build *mcfgv1.MachineOSBuild) bool { return string(build.UID) == uid }
	return slices.ContainsFunc(p.builds, same) || slices.ContainsFunc(p.every, func(b mcfgv1.MachineOSBuild) bool { return same(&b) })
}

// users are the references that keep images: of all MachineOSBuilds, MachineOSConfigs and nodes, read from the server.
type users struct {
	builds  []*mcfgv1.MachineOSBuild
	configs []mcfgv1.MachineOSConfig
	nodes   []corev1.Node
}

func (p *pass) users(ctx context.Context) (*users, error) {
	configs, nodes := &mcfgv1.MachineOSConfigList{}, &corev1.NodeList{}
	if err := p.live.List(ctx, configs); err != nil {
		return nil, fmt.Errorf("list machineosconfigs: %w", err)
	}
	if err := p.live.List(ctx, nodes); err != nil {
		return nil, fmt.Errorf("list nodes: %w", err)
	}
	u := &users{builds: slices.Clone(p.builds), configs: configs.Items, nodes: nodes.Items}
	for i := range p.every {
		u.builds = append(u.builds, &p.every[i])
	}
	return u, nil
}

// building says whether a build runs that pushes into a repository. Builds are reproducible: it may be about to
// yield the very image that is to be deleted.
func (u *users) building(repo string) bool {
	return slices.ContainsFunc(u.builds, func(build *mcfgv1.MachineOSBuild) bool {
		into, err := repository(build.Spec.RenderedImagePushSpec)
		return err == nil && into == repo && started(build) && !layering.Terminal(build)
	})
}

// need says whether something refers to an image, by whatever name it is pulled.
func (u *users) need(digest string) bool {
	suffix := "@" + digest
	return slices.ContainsFunc(u.builds, func(build *mcfgv1.MachineOSBuild) bool {
		return strings.HasSuffix(string(build.Status.DigestedImagePushSpec), suffix)
	}) || slices.ContainsFunc(u.configs, func(config mcfgv1.MachineOSConfig) bool {
		return strings.HasSuffix(string(config.Status.CurrentImagePullSpec), suffix)
	}) || slices.ContainsFunc(u.nodes, func(node corev1.Node) bool { return nodeUses(&node, digest) })
}

// pruneImage deletes an image if its time has come. It returns true if there is nothing left to delete.
func (p *pass) pruneImage(ctx context.Context, image *pushed, u *users) (bool, error) {
	repo, err := repository(mcfgv1.ImageTagFormat(image.Tag))
	if err != nil {
		return true, nil // nothing can have been pushed there
	}
	if u.building(repo) {
		image.Unused = ""
		p.again(postponed)
		return false, nil
	}
	if p.triedInVain(ctx, image) {
		return false, nil
	}
	if image.Digest == "" {
		if slices.ContainsFunc(u.builds, func(b *mcfgv1.MachineOSBuild) bool { return string(b.Spec.RenderedImagePushSpec) == image.Tag }) {
			return true, nil // the tag has gone to a later build of the name
		}
		digest, err := p.head(ctx, image.Tag, image.Secret)
		if absent(err) {
			return true, nil
		}
		if err != nil {
			return false, p.notDeleted(ctx, image, err)
		}
		image.Digest = digest
	}
	if u.need(image.Digest) {
		image.Unused = ""
		return false, nil // the end of the need wakes us
	}
	now := p.clock.Now()
	since, err := time.Parse(time.RFC3339, image.Unused)
	if err != nil {
		since = now
		image.Unused = now.UTC().Format(time.RFC3339)
	}
	if left := since.Add(grace).Sub(now); left > 0 {
		p.again(left)
		return false, nil
	}
	err = p.deleteImage(ctx, repo+"@"+image.Digest, image.Secret)
	if err == nil || absent(err) {
		return true, nil
	}
	return false, p.notDeleted(ctx, image, err)
}

// triedInVain says whether a registry has refused to delete an image with the very Secret that is there now. A changed
// Secret wakes us.
func (p *pass) triedInVain(ctx context.Context, image *pushed) bool {
	version, tried := p.refused[image.UID]
	return tried && version == p.secretVersion(ctx, image.Secret)
}

func (p *pass) secretVersion(ctx context.Context, name string) string {
	secret := &corev1.Secret{}
	if err := p.live.Get(ctx, client.ObjectKey{Namespace: p.options.Namespace, Name: name}, secret); err != nil {
		return ""
	}
	return secret.ResourceVersion
}

// notDeleted tells that an image could not be deleted. Where the registry refuses, or the Secret is missing, trying
// again with the same Secret is no use; all else is tried again.
func (p *pass) notDeleted(ctx context.Context, image *pushed, err error) error {
	if refused(err) || apierrors.IsNotFound(err) {
		p.refused[image.UID] = p.secretVersion(ctx, image.Secret)
		if p.config != nil {
			p.event(p.config, corev1.EventTypeWarning, "ImageNotDeleted", "Image %s could not be deleted: %v", image.Tag, err)
		}
		return nil
	}
	return fmt.Errorf("delete image of machineosbuild %s: %w", image.Build, err)
}
