package store

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// validateBuiltin checks an object of a built-in kind: the rules that controllers meet, not all that kube-apiserver
// has. old is nil on creation.
func validateBuiltin(w *write, obj, old client.Object) field.ErrorList {
	status := w.req.Subresource == "status"
	spec := field.NewPath("spec")
	switch t := obj.(type) {
	case *corev1.ConfigMap:
		prev, _ := old.(*corev1.ConfigMap)
		return validateConfigMap(t, prev)
	case *corev1.Secret:
		prev, _ := old.(*corev1.Secret)
		return validateSecret(t, prev)
	case *corev1.Pod:
		if status {
			return nil
		}
		if prev, ok := old.(*corev1.Pod); ok {
			return validatePodUpdate(t, prev)
		}
		return validatePodSpec(&t.Spec, spec)
	case *corev1.Node:
		errs := validateTaints(t.Spec.Taints, field.NewPath("metadata", "taints")) // so does kube-apiserver name them
		if prev, ok := old.(*corev1.Node); ok && prev.Spec.ProviderID != "" && t.Spec.ProviderID != prev.Spec.ProviderID {
			message := "field cannot be modified once set"
			if t.Spec.ProviderID == "" {
				message = "field cannot be cleared once set"
			}
			errs = append(errs, field.Invalid(spec.Child("providerID"), nil, message))
		}
		for i, a := range t.Status.Addresses {
			if old != nil && slices.Contains(t.Status.Addresses[:i], a) {
				shown := struct {
					Type    corev1.NodeAddressType
					Address string
				}(a)
				errs = append(errs, field.Duplicate(field.NewPath("status", "addresses").Index(i), shown))
			}
		}
		return errs
	case *corev1.Event:
		if t.InvolvedObject.Namespace == "" {
			if t.Namespace != metav1.NamespaceDefault && t.Namespace != metav1.NamespaceSystem {
				return field.ErrorList{field.Invalid(field.NewPath("involvedObject", "namespace"), t.InvolvedObject.Namespace, "does not match event.namespace")}
			}
		} else if t.Namespace != t.InvolvedObject.Namespace {
			return field.ErrorList{field.Invalid(field.NewPath("involvedObject", "namespace"), t.InvolvedObject.Namespace, "does not match event.namespace")}
		}
	case *batchv1.Job:
		prev, _ := old.(*batchv1.Job)
		if status {
			return validateJobStatus(t, prev)
		}
		return validateJob(t, prev)
	case *appsv1.Deployment:
		prev, _ := old.(*appsv1.Deployment)
		var prevSelector *metav1.LabelSelector
		if prev != nil {
			prevSelector = prev.Spec.Selector
		}
		return validateWorkload(status, "deployment", t.Spec.Replicas, t.Spec.Selector, prevSelector, &t.Spec.Template)
	case *appsv1.ReplicaSet:
		prev, _ := old.(*appsv1.ReplicaSet)
		var prevSelector *metav1.LabelSelector
		if prev != nil {
			prevSelector = prev.Spec.Selector
		}
		return validateWorkload(status, "deployment", t.Spec.Replicas, t.Spec.Selector, prevSelector, &t.Spec.Template)
	case *appsv1.DaemonSet:
		prev, _ := old.(*appsv1.DaemonSet)
		var prevSelector *metav1.LabelSelector
		if prev != nil {
			prevSelector = prev.Spec.Selector
		}
		return validateWorkload(status, "daemonset", nil, t.Spec.Selector, prevSelector, &t.Spec.Template)
	case *policyv1.PodDisruptionBudget:
		var errs field.ErrorList
		if t.Spec.MinAvailable != nil && t.Spec.MaxUnavailable != nil {
			errs = append(errs, field.Invalid(spec, t.Spec, "minAvailable and maxUnavailable cannot be both set"))
		}
		errs = append(errs, validateAmount(t.Spec.MinAvailable, spec.Child("minAvailable"))...)
		errs = append(errs, validateAmount(t.Spec.MaxUnavailable, spec.Child("maxUnavailable"))...)
		return append(errs, metav1validation.ValidateLabelSelector(t.Spec.Selector, metav1validation.LabelSelectorValidationOptions{}, spec.Child("selector"))...)
	case *rbacv1.Role:
		return validateRules(t.Rules, true)
	case *rbacv1.ClusterRole:
		return validateRules(t.Rules, false)
	case *rbacv1.RoleBinding:
		return validateBinding(&t.RoleRef, t.Subjects, "Role", "ClusterRole")
	case *rbacv1.ClusterRoleBinding:
		return validateBinding(&t.RoleRef, t.Subjects, "ClusterRole")
	case *coordinationv1.Lease:
		if d := t.Spec.LeaseDurationSeconds; d != nil && *d <= 0 {
			return field.ErrorList{field.Invalid(spec.Child("leaseDurationSeconds"), *d, "must be greater than 0")}
		}
		if d := t.Spec.LeaseTransitions; d != nil && *d < 0 {
			return field.ErrorList{field.Invalid(spec.Child("leaseTransitions"), *d, "must be greater than or equal to 0")}
		}
	case *apiextensionsv1.CustomResourceDefinition:
		return validateCRD(t)
	}
	return nil
}

// maxDataSize is the size that the data of a ConfigMap or Secret may have.
const maxDataSize = 1024 * 1024

const immutable = "field is immutable when `immutable` is set"

func validateConfigMap(c, old *corev1.ConfigMap) field.ErrorList {
	var errs field.ErrorList
	size := 0
	for _, key := range slices.Sorted(maps.Keys(c.Data)) {
		for _, msg := range validation.IsConfigMapKey(key) {
			errs = append(errs, field.Invalid(field.NewPath("data").Key(key), key, msg))
		}
		if _, ok := c.BinaryData[key]; ok {
			errs = append(errs, field.Invalid(field.NewPath("data").Key(key), key, "duplicate of key present in binaryData"))
		}
		size += len(c.Data[key])
	}
	for _, key := range slices.Sorted(maps.Keys(c.BinaryData)) {
		for _, msg := range validation.IsConfigMapKey(key) {
			errs = append(errs, field.Invalid(field.NewPath("binaryData").Key(key), key, msg))
		}
		size += len(c.BinaryData[key])
	}
	if size > maxDataSize {
		errs = append(errs, field.TooLong(field.NewPath(""), "", maxDataSize))
	}
	if old != nil && old.Immutable != nil && *old.Immutable {
		if c.Immutable == nil || !*c.Immutable {
			errs = append(errs, field.Forbidden(field.NewPath("immutable"), immutable))
		}
		if !equality.Semantic.DeepEqual(c.Data, old.Data) {
			errs = append(errs, field.Forbidden(field.NewPath("data"), immutable))
		}
		if !equality.Semantic.DeepEqual(c.BinaryData, old.BinaryData) {
			errs = append(errs, field.Forbidden(field.NewPath("binaryData"), immutable))
		}
	}
	return errs
}

func validateSecret(s, old *corev1.Secret) field.ErrorList {
	var errs field.ErrorList
	data := field.NewPath("data")
	size := 0
	for _, key := range slices.Sorted(maps.Keys(s.Data)) {
		for _, msg := range validation.IsConfigMapKey(key) {
			errs = append(errs, field.Invalid(data.Key(key), key, msg))
		}
		size += len(s.Data[key])
	}
	if size > maxDataSize {
		errs = append(errs, field.TooLong(data, "", maxDataSize))
	}
	holdsJSON := func(key string) {
		if raw, ok := s.Data[key]; !ok {
			errs = append(errs, field.Required(data.Key(key), ""))
		} else if err := json.Unmarshal(raw, &map[string]any{}); err != nil {
			errs = append(errs, field.Invalid(data.Key(key), "<secret contents redacted>", err.Error()))
		}
	}
	switch s.Type {
	case corev1.SecretTypeDockerConfigJson:
		holdsJSON(corev1.DockerConfigJsonKey)
	case corev1.SecretTypeDockercfg:
		holdsJSON(corev1.DockerConfigKey)
	case corev1.SecretTypeTLS:
		for _, key := range []string{corev1.TLSCertKey, corev1.TLSPrivateKeyKey} {
			if _, ok := s.Data[key]; !ok {
				errs = append(errs, field.Required(data.Key(key), ""))
			}
		}
	case corev1.SecretTypeServiceAccountToken:
		if s.Annotations[corev1.ServiceAccountNameKey] == "" {
			errs = append(errs, field.Required(field.NewPath("metadata", "annotations").Key(corev1.ServiceAccountNameKey), ""))
		}
	}
	if old != nil {
		errs = append(errs, apivalidation.ValidateImmutableField(s.Type, old.Type, field.NewPath("type"))...)
		if old.Immutable != nil && *old.Immutable {
			if s.Immutable == nil || !*s.Immutable {
				errs = append(errs, field.Forbidden(field.NewPath("immutable"), immutable))
			}
			if !equality.Semantic.DeepEqual(s.Data, old.Data) {
				errs = append(errs, field.Forbidden(data, immutable))
			}
		}
	}
	return errs
}

func validatePodSpec(p *corev1.PodSpec, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	volumes := map[string]bool{}
	for i, v := range p.Volumes {
		at := path.Child("volumes").Index(i).Child("name")
		switch {
		case v.Name == "":
			errs = append(errs, field.Required(at, ""))
		case volumes[v.Name]:
			errs = append(errs, field.Duplicate(at, v.Name))
		default:
			for _, msg := range validation.IsDNS1123Label(v.Name) {
				errs = append(errs, field.Invalid(at, v.Name, msg))
			}
		}
		volumes[v.Name] = true
		if v.ConfigMap != nil && v.ConfigMap.Name == "" {
			errs = append(errs, field.Required(path.Child("volumes").Index(i).Child("configMap", "name"), ""))
		}
		if v.Secret != nil && v.Secret.SecretName == "" {
			errs = append(errs, field.Required(path.Child("volumes").Index(i).Child("secret", "secretName"), ""))
		}
	}
	if len(p.Containers) == 0 {
		errs = append(errs, field.Required(path.Child("containers"), ""))
	}
	names := map[string]bool{}
	check := func(cs []corev1.Container, at *field.Path) {
		for i, c := range cs {
			at := at.Index(i)
			if c.Name == "" {
				errs = append(errs, field.Required(at.Child("name"), ""))
			} else {
				for _, msg := range validation.IsDNS1123Label(c.Name) {
					errs = append(errs, field.Invalid(at.Child("name"), c.Name, msg))
				}
			}
			if names[c.Name] {
				errs = append(errs, field.Duplicate(at.Child("name"), c.Name))
			}
			names[c.Name] = true
			if c.Image == "" {
				errs = append(errs, field.Required(at.Child("image"), ""))
			}
			for j, m := range c.VolumeMounts {
				mount := at.Child("volumeMounts").Index(j)
				if m.Name == "" {
					errs = append(errs, field.Required(mount.Child("name"), ""))
				}
				if !volumes[m.Name] {
					errs = append(errs, field.NotFound(mount.Child("name"), m.Name))
				}
				if m.MountPath == "" {
					errs = append(errs, field.Required(mount.Child("mountPath"), ""))
				}
			}
			for j, e := range c.Env {
				if e.Name == "" {
					errs = append(errs, field.Required(at.Child("env").Index(j).Child("name"), ""))
				}
			}
		}
	}
	check(p.Containers, path.Child("containers"))
	check(p.InitContainers, path.Child("initContainers"))
	errs = append(errs, validatePlacement(p, path)...)
	switch p.RestartPolicy {
	case corev1.RestartPolicyAlways, corev1.RestartPolicyOnFailure, corev1.RestartPolicyNever:
	default:
		errs = append(errs, field.NotSupported(path.Child("restartPolicy"), p.RestartPolicy, []corev1.RestartPolicy{
			corev1.RestartPolicyAlways, corev1.RestartPolicyOnFailure, corev1.RestartPolicyNever}))
	}
	return errs
}

// validatePodUpdate lets only those fields of a pod's spec change that may.
func validatePodUpdate(p, old *corev1.Pod) field.ErrorList {
	spec := field.NewPath("spec")
	errs := validatePodSpec(&p.Spec, spec)
	if len(p.Spec.Containers) != len(old.Spec.Containers) {
		return append(errs, field.Forbidden(spec.Child("containers"), "pod updates may not add or remove containers"))
	}
	if len(p.Spec.InitContainers) != len(old.Spec.InitContainers) {
		return append(errs, field.Forbidden(spec.Child("initContainers"), "pod updates may not add or remove containers"))
	}
	next := p.Spec.DeepCopy()
	for i := range next.Containers {
		next.Containers[i].Image = old.Spec.Containers[i].Image
	}
	for i := range next.InitContainers {
		next.InitContainers[i].Image = old.Spec.InitContainers[i].Image
	}
	if d, o := next.ActiveDeadlineSeconds, old.Spec.ActiveDeadlineSeconds; o == nil || d != nil && *d <= *o {
		next.ActiveDeadlineSeconds = o
	} else if d == nil {
		errs = append(errs, field.Invalid(spec.Child("activeDeadlineSeconds"), d, "must not update from a positive integer to nil value"))
		next.ActiveDeadlineSeconds = o
	} else {
		errs = append(errs, field.Invalid(spec.Child("activeDeadlineSeconds"), *d, "must be less than or equal to previous value"))
		next.ActiveDeadlineSeconds = o
	}
	added := 0
	for _, t := range old.Spec.Tolerations {
		if slices.ContainsFunc(next.Tolerations, func(n corev1.Toleration) bool { return n.MatchToleration(&t) }) {
			added++
		}
	}
	if added < len(old.Spec.Tolerations) {
		errs = append(errs, field.Forbidden(spec.Child("tolerations"), "existing toleration can not be modified except its tolerationSeconds"))
	}
	next.Tolerations = old.Spec.Tolerations
	if g, o := next.TerminationGracePeriodSeconds, old.Spec.TerminationGracePeriodSeconds; o != nil && *o < 0 && g != nil && *g == 1 {
		next.TerminationGracePeriodSeconds = o
	}
	if len(old.Spec.SchedulingGates) > 0 {
		next.SchedulingGates, next.NodeSelector, next.Affinity = old.Spec.SchedulingGates, old.Spec.NodeSelector, old.Spec.Affinity
	}
	if !equality.Semantic.DeepEqual(*next, old.Spec) {
		errs = append(errs, field.Forbidden(spec, "pod updates may not change fields other than `spec.containers[*].image`,"+
			"`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),"+
			"`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"))
	}
	return errs
}

func validateTaints(taints []corev1.Taint, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	type id struct {
		key    string
		effect corev1.TaintEffect
	}
	seen := map[id]bool{}
	for i, t := range taints {
		at := path.Index(i)
		for _, msg := range validation.IsQualifiedName(t.Key) {
			errs = append(errs, field.Invalid(at.Child("key"), t.Key, msg))
		}
		for _, msg := range validation.IsValidLabelValue(t.Value) {
			errs = append(errs, field.Invalid(at.Child("value"), t.Value, msg))
		}
		switch t.Effect {
		case corev1.TaintEffectNoSchedule, corev1.TaintEffectPreferNoSchedule, corev1.TaintEffectNoExecute:
		case "":
			errs = append(errs, field.Required(at.Child("effect"), ""))
		default:
			errs = append(errs, field.NotSupported(at.Child("effect"), t.Effect, []corev1.TaintEffect{
				corev1.TaintEffectNoSchedule, corev1.TaintEffectPreferNoSchedule, corev1.TaintEffectNoExecute}))
		}
		key := id{t.Key, t.Effect}
		if seen[key] {
			e := field.Duplicate(at, t)
			e.Detail = "taints must be unique by key and effect pair"
			errs = append(errs, e)
		}
		seen[key] = true
	}
	return errs
}

func atLeastZero[T int32 | int64](v *T, path *field.Path) field.ErrorList {
	if v == nil {
		return nil
	}
	return apivalidation.ValidateNonnegativeField(int64(*v), path)
}

func validateJob(j, old *batchv1.Job) field.ErrorList {
	spec := field.NewPath("spec")
	var errs field.ErrorList
	s := &j.Spec
	errs = append(errs, atLeastZero(s.Parallelism, spec.Child("parallelism"))...)
	errs = append(errs, atLeastZero(s.Completions, spec.Child("completions"))...)
	errs = append(errs, atLeastZero(s.ActiveDeadlineSeconds, spec.Child("activeDeadlineSeconds"))...)
	errs = append(errs, atLeastZero(s.BackoffLimit, spec.Child("backoffLimit"))...)
	errs = append(errs, atLeastZero(s.TTLSecondsAfterFinished, spec.Child("ttlSecondsAfterFinished"))...)
	template := spec.Child("template")
	if old == nil {
		errs = append(errs, metav1validation.ValidateLabels(s.Template.Labels, template.Child("labels"))...)
		errs = append(errs, validatePodSpec(&s.Template.Spec, template.Child("spec"))...)
		if p := s.Template.Spec.RestartPolicy; p == corev1.RestartPolicyAlways || p == "" {
			errs = append(errs, field.Required(template.Child("spec", "restartPolicy"),
				fmt.Sprintf("valid values: %q, %q", corev1.RestartPolicyOnFailure, corev1.RestartPolicyNever)))
		} else if p != corev1.RestartPolicyOnFailure && p != corev1.RestartPolicyNever {
			errs = append(errs, field.NotSupported(template.Child("spec", "restartPolicy"), p,
				[]corev1.RestartPolicy{corev1.RestartPolicyOnFailure, corev1.RestartPolicyNever}))
		}
	}
	if s.Selector == nil {
		errs = append(errs, field.Required(spec.Child("selector"), ""))
	} else if sel, err := metav1.LabelSelectorAsSelector(s.Selector); err == nil && !sel.Matches(labels.Set(s.Template.Labels)) {
		errs = append(errs, field.Invalid(template.Child("metadata", "labels"), s.Template.Labels, "`selector` does not match template `labels`"))
	}
	if old == nil {
		return errs
	}
	if !equality.Semantic.DeepEqual(s.Completions, old.Spec.Completions) {
		indexed := s.CompletionMode != nil && *s.CompletionMode == batchv1.IndexedCompletion
		elastic := indexed && equality.Semantic.DeepEqual(s.Completions, s.Parallelism)
		if !elastic {
			errs = append(errs, apivalidation.ValidateImmutableField(s.Completions, old.Spec.Completions, spec.Child("completions"))...)
		}
	}
	errs = append(errs, apivalidation.ValidateImmutableField(s.Selector, old.Spec.Selector, spec.Child("selector"))...)
	next := s.Template.DeepCopy()
	if suspended := old.Spec.Suspend != nil && *old.Spec.Suspend; suspended && old.Status.StartTime == nil {
		was := old.Spec.Template
		next.Spec.NodeSelector, next.Spec.Tolerations, next.Spec.Affinity = was.Spec.NodeSelector, was.Spec.Tolerations, was.Spec.Affinity
		next.Labels, next.Annotations, next.Spec.SchedulingGates = was.Labels, was.Annotations, was.Spec.SchedulingGates
	}
	if !equality.Semantic.DeepEqual(*next, old.Spec.Template) {
		errs = append(errs, apivalidation.ValidateImmutableField(s.Template, old.Spec.Template, template)...)
	}
	errs = append(errs, apivalidation.ValidateImmutableField(s.CompletionMode, old.Spec.CompletionMode, spec.Child("completionMode"))...)
	errs = append(errs, apivalidation.ValidateImmutableField(s.PodFailurePolicy, old.Spec.PodFailurePolicy, spec.Child("podFailurePolicy"))...)
	errs = append(errs, apivalidation.ValidateImmutableField(s.BackoffLimitPerIndex, old.Spec.BackoffLimitPerIndex, spec.Child("backoffLimitPerIndex"))...)
	return errs
}

func jobCondition(j *batchv1.Job, t batchv1.JobConditionType) bool {
	return j != nil && slices.ContainsFunc(j.Status.Conditions, func(c batchv1.JobCondition) bool {
		return c.Type == t && c.Status == corev1.ConditionTrue
	})
}

// validateJobStatus holds the Job controller to the order of conditions.
func validateJobStatus(j, old *batchv1.Job) field.ErrorList {
	status := field.NewPath("status")
	var errs field.ErrorList
	complete, failed := jobCondition(j, batchv1.JobComplete), jobCondition(j, batchv1.JobFailed)
	wasComplete, wasFailed := jobCondition(old, batchv1.JobComplete), jobCondition(old, batchv1.JobFailed)
	conditions := status.Child("conditions")
	if complete && failed {
		errs = append(errs, field.Invalid(conditions, field.OmitValueType{}, "cannot set Complete=True and Failed=true conditions"))
	}
	if wasComplete && !complete {
		errs = append(errs, field.Invalid(conditions, field.OmitValueType{}, "cannot disable the terminal Complete=True condition"))
	}
	if wasFailed && !failed {
		errs = append(errs, field.Invalid(conditions, field.OmitValueType{}, "cannot disable the terminal Failed=True condition"))
	}
	for _, t := range []batchv1.JobConditionType{batchv1.JobFailureTarget, batchv1.JobSuccessCriteriaMet} {
		if jobCondition(old, t) && !jobCondition(j, t) {
			errs = append(errs, field.Invalid(conditions, field.OmitValueType{}, fmt.Sprintf("cannot disable the terminal %s=True condition", t)))
		}
	}
	if old != nil && j.Status.Failed < old.Status.Failed {
		errs = append(errs, field.Invalid(status.Child("failed"), j.Status.Failed, "cannot decrease the failed counter"))
	}
	if old != nil && j.Status.Succeeded < old.Status.Succeeded && (j.Spec.CompletionMode == nil || *j.Spec.CompletionMode != batchv1.IndexedCompletion) {
		errs = append(errs, field.Invalid(status.Child("succeeded"), j.Status.Succeeded, "cannot decrease the succeeded counter"))
	}
	if !wasComplete && complete && !jobCondition(j, batchv1.JobSuccessCriteriaMet) {
		errs = append(errs, field.Invalid(conditions, field.OmitValueType{},
			"cannot set Complete=True condition without the SuccessCriteriaMet=true condition"))
	}
	if !wasFailed && failed && !jobCondition(j, batchv1.JobFailureTarget) {
		errs = append(errs, field.Invalid(conditions, field.OmitValueType{},
			"cannot set Failed=True condition without the FailureTarget=true condition"))
	}
	if complete && !wasComplete && j.Status.CompletionTime == nil {
		errs = append(errs, field.Required(status.Child("completionTime"), "completionTime is required for Complete jobs"))
	}
	if !complete && j.Status.CompletionTime != nil && (old == nil || old.Status.CompletionTime == nil) {
		errs = append(errs, field.Invalid(status.Child("completionTime"), j.Status.CompletionTime, "cannot set completionTime when there is no Complete=True condition"))
	}
	if (complete || failed) && !wasComplete && !wasFailed {
		if j.Status.Active > 0 {
			errs = append(errs, field.Invalid(status.Child("active"), j.Status.Active, "active>0 is invalid for finished job"))
		}
		if u := j.Status.UncountedTerminatedPods; u != nil && len(u.Failed)+len(u.Succeeded) > 0 {
			errs = append(errs, field.Invalid(status.Child("uncountedTerminatedPods"), u, "uncountedTerminatedPods needs to be empty for finished job"))
		}
	}
	for _, n := range []struct {
		name  string
		value int32
	}{{"active", j.Status.Active}, {"succeeded", j.Status.Succeeded}, {"failed", j.Status.Failed}} {
		errs = append(errs, apivalidation.ValidateNonnegativeField(int64(n.value), status.Child(n.name))...)
	}
	if old != nil && old.Status.StartTime != nil && j.Status.StartTime == nil && (j.Spec.Suspend == nil || !*j.Spec.Suspend) {
		errs = append(errs, field.Required(status.Child("startTime"), "startTime cannot be removed for unsuspended job"))
	}
	return errs
}

func validateWorkload(status bool, kind string, replicas *int32, selector, old *metav1.LabelSelector, template *corev1.PodTemplateSpec) field.ErrorList {
	if status {
		return nil
	}
	spec := field.NewPath("spec")
	errs := atLeastZero(replicas, spec.Child("replicas"))
	// The words are those of kube-apiserver, which calls a ReplicaSet a deployment and tells less of a DaemonSet.
	daemons, at := kind == "daemonset", spec.Child("selector")
	errs = append(errs, metav1validation.ValidateLabelSelector(selector, metav1validation.LabelSelectorValidationOptions{}, at)...)
	if selector == nil && !daemons {
		errs = append(errs, field.Required(at, ""))
	}
	if selector != nil && len(selector.MatchLabels)+len(selector.MatchExpressions) == 0 {
		errs = append(errs, field.Invalid(at, selector, "empty selector is invalid for "+kind))
	}
	sel, err := metav1.LabelSelectorAsSelector(selector)
	switch {
	case err != nil && !daemons:
		errs = append(errs, field.Invalid(at, selector, "invalid label selector"))
	case err == nil && (daemons || selector == nil || !sel.Empty()) && !sel.Matches(labels.Set(template.Labels)):
		errs = append(errs, field.Invalid(spec.Child("template", "metadata", "labels"), template.Labels, "`selector` does not match template `labels`"))
	}
	errs = append(errs, metav1validation.ValidateLabels(template.Labels, spec.Child("template", "labels"))...)
	errs = append(errs, validatePodSpec(&template.Spec, spec.Child("template", "spec"))...)
	if template.Spec.RestartPolicy != corev1.RestartPolicyAlways {
		errs = append(errs, field.NotSupported(spec.Child("template", "spec", "restartPolicy"), template.Spec.RestartPolicy,
			[]corev1.RestartPolicy{corev1.RestartPolicyAlways}))
	}
	if old != nil {
		errs = append(errs, apivalidation.ValidateImmutableField(selector, old, spec.Child("selector"))...)
	}
	return errs
}

// validateAmount checks a number or a percentage.
func validateAmount(v *intstr.IntOrString, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	switch {
	case v == nil:
	case v.Type == intstr.Int:
		errs = apivalidation.ValidateNonnegativeField(int64(v.IntVal), path)
	default:
		for _, msg := range validation.IsValidPercent(v.StrVal) {
			errs = append(errs, field.Invalid(path, v.StrVal, msg))
		}
		if n, err := strconv.Atoi(strings.TrimSuffix(v.StrVal, "%")); err == nil && errs == nil && n > 100 {
			errs = append(errs, field.Invalid(path, *v, "must not be greater than 100%"))
		}
	}
	return errs
}

// validateRules checks the rules of a role.
func validateRules(rules []rbacv1.PolicyRule, namespaced bool) field.ErrorList {
	var errs field.ErrorList
	for i, r := range rules {
		at := field.NewPath("rules").Index(i)
		if len(r.Verbs) == 0 {
			errs = append(errs, field.Required(at.Child("verbs"), ""))
		}
		if len(r.NonResourceURLs) > 0 {
			if namespaced {
				errs = append(errs, field.Invalid(at.Child("nonResourceURLs"), r.NonResourceURLs, "namespaced rules cannot apply to non-resource URLs"))
			}
			if len(r.APIGroups) > 0 || len(r.Resources) > 0 || len(r.ResourceNames) > 0 {
				errs = append(errs, field.Invalid(at.Child("nonResourceURLs"), r.NonResourceURLs, "rules cannot apply to both regular resources and non-resource URLs"))
			}
			continue
		}
		if len(r.APIGroups) == 0 {
			errs = append(errs, field.Required(at.Child("apiGroups"), "resource rules must supply at least one api group"))
		}
		if len(r.Resources) == 0 {
			errs = append(errs, field.Required(at.Child("resources"), "resource rules must supply at least one resource"))
		}
	}
	return errs
}

// validateBinding checks a role binding, whose role is of one of the kinds.
func validateBinding(role *rbacv1.RoleRef, subjects []rbacv1.Subject, kinds ...string) field.ErrorList {
	var errs field.ErrorList
	ref := field.NewPath("roleRef")
	if role.APIGroup != rbacv1.GroupName {
		errs = append(errs, field.NotSupported(ref.Child("apiGroup"), role.APIGroup, []string{rbacv1.GroupName}))
	}
	if !slices.Contains(kinds, role.Kind) {
		errs = append(errs, field.NotSupported(ref.Child("kind"), role.Kind, kinds))
	}
	if role.Name == "" {
		errs = append(errs, field.Required(ref.Child("name"), ""))
	} else {
		for _, msg := range segmentName(role.Name, false) {
			errs = append(errs, field.Invalid(ref.Child("name"), role.Name, msg))
		}
	}
	for i, s := range subjects {
		at := field.NewPath("subjects").Index(i)
		if s.Name == "" {
			errs = append(errs, field.Required(at.Child("name"), ""))
		}
		group := rbacv1.GroupName
		switch s.Kind {
		case rbacv1.ServiceAccountKind:
			group = ""
			for _, msg := range apivalidation.ValidateServiceAccountName(s.Name, false) {
				if s.Name != "" {
					errs = append(errs, field.Invalid(at.Child("name"), s.Name, msg))
				}
			}
			if s.Namespace == "" {
				errs = append(errs, field.Required(at.Child("namespace"), ""))
			}
		case rbacv1.UserKind, rbacv1.GroupKind:
		default:
			errs = append(errs, field.NotSupported(at.Child("kind"), s.Kind, []string{rbacv1.ServiceAccountKind, rbacv1.UserKind, rbacv1.GroupKind}))
			continue
		}
		if s.APIGroup != group {
			errs = append(errs, field.NotSupported(at.Child("apiGroup"), s.APIGroup, []string{group}))
		}
	}
	return errs
}

// validatePlacement checks the tolerations and the node selector of a pod.
func validatePlacement(p *corev1.PodSpec, path *field.Path) field.ErrorList {
	errs := metav1validation.ValidateLabels(p.NodeSelector, path.Child("nodeSelector"))
	for i, t := range p.Tolerations {
		at := path.Child("tolerations").Index(i)
		if t.Key != "" {
			errs = append(errs, metav1validation.ValidateLabelName(t.Key, at.Child("key"))...)
		}
		if t.Key == "" && t.Operator != corev1.TolerationOpExists {
			errs = append(errs, field.Invalid(at.Child("operator"), t.Operator, "operator must be Exists when `key` is empty, which means \"match all values and all keys\""))
		}
		if t.TolerationSeconds != nil && t.Effect != corev1.TaintEffectNoExecute {
			errs = append(errs, field.Invalid(at.Child("effect"), t.Effect, "effect must be 'NoExecute' when `tolerationSeconds` is set"))
		}
		switch t.Operator {
		case corev1.TolerationOpEqual, "":
			for _, msg := range validation.IsValidLabelValue(t.Value) {
				errs = append(errs, field.Invalid(at.Child("operator"), t.Value, msg))
			}
		case corev1.TolerationOpExists:
			if t.Value != "" {
				errs = append(errs, field.Invalid(at.Child("operator"), t, "value must be empty when `operator` is 'Exists'"))
			}
		default:
			errs = append(errs, field.NotSupported(at.Child("operator"), t.Operator, []corev1.TolerationOperator{corev1.TolerationOpEqual, corev1.TolerationOpExists}))
		}
		switch t.Effect {
		case "", corev1.TaintEffectNoSchedule, corev1.TaintEffectPreferNoSchedule, corev1.TaintEffectNoExecute:
		default:
			errs = append(errs, field.NotSupported(at.Child("effect"), t.Effect, []corev1.TaintEffect{
				corev1.TaintEffectNoSchedule, corev1.TaintEffectPreferNoSchedule, corev1.TaintEffectNoExecute}))
		}
	}
	return errs
}
