package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

// instruction is one instruction of a Containerfile.
type instruction struct{ name, rest string }

// instructions parses a Containerfile: it ignores comments and joins lines that
// end with "\".
func instructions(file string) (all []instruction) {
	lines := regexp.MustCompile(`(?m)^\s*#.*\n`).ReplaceAllString(file, "")
	for line := range strings.Lines(strings.ReplaceAll(lines, "\\\n", " ")) {
		if name, rest, _ := strings.Cut(strings.TrimSpace(line), " "); name != "" {
			all = append(all, instruction{strings.ToUpper(name), strings.TrimSpace(rest)})
		}
	}
	return all
}

// lint returns the violations of the hadolint rules that apply to an image with
// a static binary, and of three rules of our own.
func lint(file string) (breaches []string) {
	last := make(map[string]string)
	for _, i := range instructions(file) {
		last[i.name] = i.rest
		image := strings.Fields(i.rest + " ")
		switch {
		case i.name == "FROM" && len(image) > 0 && image[0] != "scratch" && !strings.ContainsAny(image[0], ":@"):
			breaches = append(breaches, "DL3006: the version of the image is not pinned")
		case i.name == "FROM" && strings.Contains(i.rest, ":latest"):
			breaches = append(breaches, "DL3007: the image is :latest")
		case i.name == "ADD":
			breaches = append(breaches, "DL3020: ADD instead of COPY")
		case i.name == "MAINTAINER":
			breaches = append(breaches, "DL4000: MAINTAINER is deprecated")
		case i.name == "WORKDIR" && !strings.HasPrefix(i.rest, "/"):
			breaches = append(breaches, "DL3000: WORKDIR is not absolute")
		case i.name == "RUN" && strings.Contains(i.rest, "sudo"):
			breaches = append(breaches, "DL3004: sudo")
		case i.name == "COPY" && len(image) > 0 && !strings.HasPrefix(image[len(image)-1], "/"):
			breaches = append(breaches, "DL3045: COPY to a relative destination")
		case (i.name == "CMD" || i.name == "ENTRYPOINT") && json.Unmarshal([]byte(i.rest), new([]string)) != nil:
			breaches = append(breaches, "DL3025: "+i.name+" is not in JSON form")
		}
	}
	if user := last["USER"]; user == "" || strings.HasPrefix(user, "root") || regexp.MustCompile(`^0(:|$)`).MatchString(user) {
		breaches = append(breaches, "DL3002: the last user is root")
	}
	if !regexp.MustCompile(`^\d+:\d+$`).MatchString(last["USER"]) {
		breaches = append(breaches, "the user is not a number, which runAsNonRoot of Kubernetes needs")
	}
	if last["EXPOSE"] != "8087" {
		breaches = append(breaches, "EXPOSE is not the port of the command")
	}
	if last["VOLUME"] != `["/data"]` || !strings.Contains(last["CMD"], `"--data-dir", "/data"`) {
		breaches = append(breaches, "the state is not kept in the volume")
	}
	return breaches
}

// CI cannot download hadolint from any registry, so lint replaces it; where
// hadolint is installed, the test runs it too.
func TestContainerfile_is_clean(t *testing.T) {
	file, err := os.ReadFile("Containerfile")
	if err != nil {
		t.Fatal(err)
	}
	for _, breach := range lint(string(file)) {
		t.Error(breach)
	}
	for _, i := range instructions(string(file)) {
		if i.name == "CMD" {
			var args []string
			if err := json.Unmarshal([]byte(i.rest), &args); err != nil {
				t.Error(err)
			} else if err := newSettings().parse(args); err != nil {
				t.Errorf("the command has wrong flags: %v", err)
			}
		}
	}
	hadolint, err := exec.LookPath("hadolint")
	if err != nil {
		t.Log("hadolint is not installed; only the rules of this file were checked")
		return
	}
	if out, err := exec.Command(hadolint, "Containerfile").CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestLint_finds_each_breach(t *testing.T) {
	good, err := os.ReadFile("Containerfile")
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range []struct{ old, new, says string }{
		{"FROM scratch", "FROM alpine", "DL3006"},
		{"FROM scratch", "FROM alpine:latest", "DL3007"},
		{"COPY ots", "ADD ots", "DL3020"},
		{"USER 65532:65532", "USER root", "DL3002"},
		{"USER 65532:65532", "USER 0:0", "DL3002"},
		{"USER 65532:65532", "", "DL3002"},
		{"USER 65532:65532", "USER nobody", "not a number"},
		{"USER 65532:65532", "WORKDIR data", "DL3000"},
		{"USER 65532:65532", "RUN sudo x", "DL3004"},
		{"USER 65532:65532", "MAINTAINER x", "DL4000"},
		{" /ots-emulator\n", " ots-emulator\n", "DL3045"},
		{`CMD ["--addr"`, `CMD --addr`, "DL3025"},
		{"EXPOSE 8087", "EXPOSE 80", "EXPOSE"},
		{`VOLUME ["/data"]`, "", "volume"},
		{`"/data"]` + "\n", `"/tmp"]` + "\n", "volume"},
	} {
		bad := strings.ReplaceAll(string(good), v.old, v.new)
		if found := strings.Join(lint(bad), "; "); bad == string(good) || !strings.Contains(found, v.says) {
			t.Errorf("%q instead of %q: lint finds %q", v.new, v.old, found)
		}
	}
}
