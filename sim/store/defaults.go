package store

import (
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

func fill[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

func point[T any](field **T, value T) {
	if *field == nil {
		*field = &value
	}
}

// prepareBuiltin sets what the API server sets in an object of a built-in kind, and says whether there is anything of
// that sort for the kind. old is nil on creation.
func (s *Store) prepareBuiltin(w *write, obj, old client.Object) bool {
	create := old == nil
	switch t := obj.(type) {
	case *corev1.Namespace:
		if create {
			t.Status.Phase = corev1.NamespaceActive
			t.Spec.Finalizers = []corev1.FinalizerName{corev1.FinalizerKubernetes}
		} else if prev, ok := old.(*corev1.Namespace); ok && w.req.Subresource != "finalize" {
			t.Spec.Finalizers = prev.Spec.Finalizers
		}
		fill(&t.Status.Phase, corev1.NamespaceActive)
		if t.Labels == nil {
			t.Labels = map[string]string{}
		}
		t.Labels[corev1.LabelMetadataName] = t.Name
	case *corev1.Pod:
		if create {
			fill(&t.Spec.ServiceAccountName, "default") // as an admission plugin does, which updates don't meet
		}
		defaultPodSpec(&t.Spec, true)
		if create {
			if g := t.Spec.TerminationGracePeriodSeconds; *g < 0 {
				*g = 1
			}
			t.Status = corev1.PodStatus{Phase: corev1.PodPending, QOSClass: qosClass(&t.Spec)}
		}
	case *corev1.Secret:
		if t.Data == nil && len(t.StringData) > 0 {
			t.Data = map[string][]byte{}
		}
		for k, v := range t.StringData {
			t.Data[k] = []byte(v)
		}
		t.StringData = nil
		fill(&t.Type, corev1.SecretTypeOpaque)
	case *corev1.Service:
		fill(&t.Spec.Type, corev1.ServiceTypeClusterIP)
		fill(&t.Spec.SessionAffinity, corev1.ServiceAffinityNone)
		for i := range t.Spec.Ports {
			fill(&t.Spec.Ports[i].Protocol, corev1.ProtocolTCP)
			if t.Spec.Ports[i].TargetPort == (intstr.IntOrString{}) {
				t.Spec.Ports[i].TargetPort = intstr.FromInt32(t.Spec.Ports[i].Port)
			}
		}
	case *batchv1.Job:
		s.defaultJob(t, create)
	case *appsv1.Deployment:
		point(&t.Spec.Replicas, 1)
		fill(&t.Spec.Strategy.Type, appsv1.RollingUpdateDeploymentStrategyType)
		if t.Spec.Strategy.Type == appsv1.RollingUpdateDeploymentStrategyType {
			point(&t.Spec.Strategy.RollingUpdate, appsv1.RollingUpdateDeployment{})
			point(&t.Spec.Strategy.RollingUpdate.MaxUnavailable, intstr.FromString("25%"))
			point(&t.Spec.Strategy.RollingUpdate.MaxSurge, intstr.FromString("25%"))
		}
		point(&t.Spec.RevisionHistoryLimit, 10)
		point(&t.Spec.ProgressDeadlineSeconds, 600)
		defaultPodSpec(&t.Spec.Template.Spec, false)
	case *appsv1.ReplicaSet:
		point(&t.Spec.Replicas, 1)
		defaultPodSpec(&t.Spec.Template.Spec, false)
	case *appsv1.DaemonSet:
		fill(&t.Spec.UpdateStrategy.Type, appsv1.RollingUpdateDaemonSetStrategyType)
		if t.Spec.UpdateStrategy.Type == appsv1.RollingUpdateDaemonSetStrategyType {
			point(&t.Spec.UpdateStrategy.RollingUpdate, appsv1.RollingUpdateDaemonSet{})
			point(&t.Spec.UpdateStrategy.RollingUpdate.MaxUnavailable, intstr.FromInt32(1))
			point(&t.Spec.UpdateStrategy.RollingUpdate.MaxSurge, intstr.FromInt32(0))
		}
		point(&t.Spec.RevisionHistoryLimit, 10)
		defaultPodSpec(&t.Spec.Template.Spec, false)
		templateGeneration(t, old)
	case *corev1.Node:
		if len(t.Status.Allocatable) == 0 {
			t.Status.Allocatable = t.Status.Capacity.DeepCopy()
		}
	case *rbacv1.RoleBinding:
		defaultBinding(&t.RoleRef, t.Subjects)
	case *rbacv1.ClusterRoleBinding:
		defaultBinding(&t.RoleRef, t.Subjects)
	case *apiextensionsv1.CustomResourceDefinition:
		s.prepareCRD(t, create)
	default:
		return false
	}
	return true
}

// defaultPodSpec sets the defaults of a pod or a pod template.
func defaultPodSpec(p *corev1.PodSpec, pod bool) {
	fill(&p.RestartPolicy, corev1.RestartPolicyAlways)
	fill(&p.DNSPolicy, corev1.DNSClusterFirst)
	fill(&p.SchedulerName, corev1.DefaultSchedulerName)
	point(&p.TerminationGracePeriodSeconds, corev1.DefaultTerminationGracePeriodSeconds)
	point(&p.SecurityContext, corev1.PodSecurityContext{})
	if pod {
		point(&p.EnableServiceLinks, true)
		point(&p.PreemptionPolicy, corev1.PreemptLowerPriority)
		point(&p.Priority, 0)
	}
	p.DeprecatedServiceAccount = p.ServiceAccountName
	for i := range p.Volumes {
		if p.Volumes[i].VolumeSource == (corev1.VolumeSource{}) {
			p.Volumes[i].EmptyDir = &corev1.EmptyDirVolumeSource{}
		}
	}
	defaultContainers := func(cs []corev1.Container) {
		for i := range cs {
			c := &cs[i]
			fill(&c.TerminationMessagePath, corev1.TerminationMessagePathDefault)
			fill(&c.TerminationMessagePolicy, corev1.TerminationMessageReadFile)
			if c.ImagePullPolicy == "" {
				c.ImagePullPolicy = pullPolicy(c.Image)
			}
			for j := range c.Ports {
				fill(&c.Ports[j].Protocol, corev1.ProtocolTCP)
			}
			for j := range c.Env {
				if f := c.Env[j].ValueFrom; f != nil && f.FieldRef != nil {
					fill(&f.FieldRef.APIVersion, "v1")
				}
			}
		}
	}
	defaultContainers(p.InitContainers)
	defaultContainers(p.Containers)
	for i := range p.Volumes {
		v := &p.Volumes[i].VolumeSource
		switch {
		case v.Secret != nil:
			point(&v.Secret.DefaultMode, corev1.SecretVolumeSourceDefaultMode)
		case v.ConfigMap != nil:
			point(&v.ConfigMap.DefaultMode, corev1.ConfigMapVolumeSourceDefaultMode)
		case v.Projected != nil:
			point(&v.Projected.DefaultMode, corev1.ProjectedVolumeSourceDefaultMode)
		case v.DownwardAPI != nil:
			point(&v.DownwardAPI.DefaultMode, corev1.DownwardAPIVolumeSourceDefaultMode)
		case v.HostPath != nil:
			point(&v.HostPath.Type, corev1.HostPathUnset)
		}
	}
	if !pod {
		return
	}
	// The admission plugin DefaultTolerationSeconds.
	seconds := int64(5 * time.Minute / time.Second)
	for _, key := range []string{corev1.TaintNodeNotReady, corev1.TaintNodeUnreachable} {
		found := false
		for _, t := range p.Tolerations {
			if (t.Key == key || t.Key == "") && (t.Effect == corev1.TaintEffectNoExecute || t.Effect == "") {
				found = true
			}
		}
		if !found {
			p.Tolerations = append(p.Tolerations, corev1.Toleration{
				Key: key, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute, TolerationSeconds: &seconds,
			})
		}
	}
}

// qosClass is the class that follows from the containers' requests and limits of cpu and memory.
func qosClass(p *corev1.PodSpec) corev1.PodQOSClass {
	some, all := false, true
	for _, c := range append(slices.Clone(p.Containers), p.InitContainers...) {
		for _, r := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
			request, requested := c.Resources.Requests[r]
			limit, limited := c.Resources.Limits[r]
			some = some || requested || limited
			all = all && limited && (!requested || request.Cmp(limit) == 0)
		}
	}
	switch {
	case !some:
		return corev1.PodQOSBestEffort
	case all:
		return corev1.PodQOSGuaranteed
	}
	return corev1.PodQOSBurstable
}

// repository is the form of an image's name without host and tag.
var repository = regexp.MustCompile(`^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*$`)

// pullPolicy is Always for an image without tag or with the tag latest, unless that isn't the name of an image at all.
func pullPolicy(image string) corev1.PullPolicy {
	name := image
	if host, rest, ok := strings.Cut(image, "/"); ok && (strings.ContainsAny(host, ".:") || host == "localhost") {
		name = rest
	}
	if name, _, _ = strings.Cut(name, ":"); !strings.Contains(image, "@") && (len(image) > 255 || !repository.MatchString(name)) {
		return corev1.PullIfNotPresent
	}
	for i := len(image) - 1; i >= 0 && image[i] != '/'; i-- {
		if image[i] == '@' {
			return corev1.PullIfNotPresent
		}
		if image[i] == ':' {
			if image[i+1:] == "latest" {
				return corev1.PullAlways
			}
			return corev1.PullIfNotPresent
		}
	}
	return corev1.PullAlways
}

func (s *Store) defaultJob(j *batchv1.Job, create bool) {
	if j.Spec.Completions == nil && j.Spec.Parallelism == nil {
		point(&j.Spec.Completions, 1)
	}
	point(&j.Spec.Parallelism, 1)
	if j.Spec.BackoffLimit == nil {
		point(&j.Spec.BackoffLimit, 6)
	}
	point(&j.Spec.CompletionMode, batchv1.NonIndexedCompletion)
	point(&j.Spec.Suspend, false)
	if j.Spec.PodReplacementPolicy == nil {
		if j.Spec.PodFailurePolicy != nil {
			point(&j.Spec.PodReplacementPolicy, batchv1.Failed)
		} else {
			point(&j.Spec.PodReplacementPolicy, batchv1.TerminatingOrFailed)
		}
	}
	point(&j.Spec.ManualSelector, false)
	defaultPodSpec(&j.Spec.Template.Spec, false)
	if !create {
		return
	}
	if !*j.Spec.ManualSelector {
		labels := map[string]string{
			batchv1.ControllerUidLabel: string(j.UID), "controller-uid": string(j.UID),
			batchv1.JobNameLabel: j.Name, "job-name": j.Name,
		}
		if j.Spec.Template.Labels == nil {
			j.Spec.Template.Labels = map[string]string{}
		}
		maps.Copy(j.Spec.Template.Labels, labels)
		if j.Spec.Selector == nil {
			j.Spec.Selector = &metav1.LabelSelector{}
		}
		if j.Spec.Selector.MatchLabels == nil {
			j.Spec.Selector.MatchLabels = map[string]string{}
		}
		j.Spec.Selector.MatchLabels[batchv1.ControllerUidLabel] = string(j.UID)
	}
	if len(j.Labels) == 0 {
		// A Job without labels takes over its template's.
		j.Labels = maps.Clone(j.Spec.Template.Labels)
	}
}

// templateGeneration counts the changes of a DaemonSet's template in an annotation.
func templateGeneration(d *appsv1.DaemonSet, old client.Object) {
	n := 1
	if prev, ok := old.(*appsv1.DaemonSet); ok {
		before, err := strconv.Atoi(prev.Annotations[appsv1.DeprecatedTemplateGeneration])
		if err != nil {
			before = 0
		}
		n = before
		if !equality.Semantic.DeepEqual(d.Spec.Template, prev.Spec.Template) {
			n++
		}
	}
	if d.Annotations == nil {
		d.Annotations = map[string]string{}
	}
	d.Annotations[appsv1.DeprecatedTemplateGeneration] = strconv.Itoa(n)
}

func defaultBinding(role *rbacv1.RoleRef, subjects []rbacv1.Subject) {
	fill(&role.APIGroup, rbacv1.GroupName)
	for i := range subjects {
		if k := subjects[i].Kind; k == rbacv1.UserKind || k == rbacv1.GroupKind {
			fill(&subjects[i].APIGroup, rbacv1.GroupName)
		}
	}
}
