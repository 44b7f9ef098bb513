#!/bin/sh
# Puts ZWRM on this host, or takes it back: install.sh install|uninstall|purge.
# Uninstall keeps what took work, which is what zwrmd remembers, the images and a
# changed configuration; purge takes those, too. DESTDIR and PREFIX as in the GNU
# coding standards. With DESTDIR nothing of the running host is touched. The binaries
# are those in build/.
set -eu

cd "$(dirname "$0")/.."
action=${1:?install, uninstall or purge}
prefix=${PREFIX:-/usr/local}
dest=${DESTDIR:-}

# What is put where: mode, source, target. Links to units have no place here:
# systemctl enable makes them.
files() {
	cat <<-EOF
		0755 build/zwrm $prefix/bin/zwrm
		0755 build/zwrmd $prefix/sbin/zwrmd
		0755 build/zwrm-init $prefix/lib/zwrm/zwrm-init
		0644 dist/systemd/zwrmd.service $prefix/lib/systemd/system/zwrmd.service
		0644 dist/systemd/zwrm.sysusers $prefix/lib/sysusers.d/zwrm.conf
		0644 dist/network/99-zwrmd.conf /etc/sysctl.d/99-zwrmd.conf
		0644 dist/network/99-zwrm.rules /etc/udev/rules.d/99-zwrm.rules
		0644 dist/network/10-zwrm.link /etc/systemd/network/10-zwrm.link
		0644 dist/network/10-zwrm.network /etc/systemd/network/10-zwrm.network
		0644 dist/network/99-zwrm-networkmanager.conf /etc/NetworkManager/conf.d/99-zwrm.conf
		0644 docs/networking.md $prefix/share/doc/zwrm/networking.md
		0644 docs/drift.md $prefix/share/doc/zwrm/drift.md
		0644 docs/images.md $prefix/share/doc/zwrm/images.md
		0644 docs/security.md $prefix/share/doc/zwrm/security.md
		0644 docs/upgrade.md $prefix/share/doc/zwrm/upgrade.md
	EOF
}

config=/etc/zwrm/config.toml
state=/var/lib/zwrm

# What install made or changed besides its files, for uninstall to take back:
# "folder PATH", "sysctl PATH OLD NEW", "group NAME". A second install finds most of
# it done and adds nothing, so that what was before the first is what comes back.
notes=/etc/zwrm/installed

note() {
	[ -n "$dest" ] || echo "$*" >>"$notes"
}

# folder makes a folder and those above it.
folder() {
	[ ! -d "$dest$1" ] || return 0
	folder "$(dirname "$1")"
	mkdir "$dest$1"
	note folder "$1"
}

# sysctls lists the settings of our sysctl file as "path value".
sysctls() {
	sed -n 's/^\([a-z][^=]*\)=\(.*\)$/\1 \2/p' dist/network/99-zwrmd.conf | while read -r name value; do
		echo "/proc/sys/$(echo "$name" | tr . /) $value"
	done
}

# apply_sysctls sets them at once. A setting that is larger already stays, and one
# that this namespace does not have (the neighbour table's bounds are the machine's)
# is not ours to set.
apply_sysctls() {
	sysctls | while read -r path value; do
		[ -w "$path" ] || continue
		old=$(cat "$path")
		[ "$old" -lt "$value" ] || continue
		echo "$value" >"$path"
		note sysctl "$path" "$old" "$value"
	done
}

# make_group makes the group whose members may use the socket.
make_group() {
	if command -v systemd-sysusers >/dev/null && ! getent group zwrm >/dev/null; then
		systemd-sysusers "$prefix/lib/sysusers.d/zwrm.conf"
		note group zwrm
	fi
}

# take_back undoes what the notes say, the last first. Folders that somebody else
# uses now stay, and so do settings that somebody changed since.
take_back() {
	[ -e "$notes" ] || return 0
	taken=$(tac "$notes")
	rm "$notes"
	echo "$taken" | while read -r what name old new; do
		case $what in
		folder) rmdir "$name" 2>/dev/null || true ;;
		sysctl) [ "$(cat "$name")" != "$new" ] || echo "$old" >"$name" ;;
		group) groupdel "$name" ;;
		esac
	done
}

install_all() {
	if [ ! -d "$dest/etc/zwrm" ]; then
		mkdir -p "$dest/etc/zwrm"
		note folder /etc/zwrm
	fi
	files | while read -r mode source target; do
		folder "$(dirname "$target")"
		case $source in
		*.service) sed "s|@PREFIX@|$prefix|g" "$source" >"$dest$target" && chmod "$mode" "$dest$target" ;;
		*) install -m "$mode" "$source" "$dest$target" ;;
		esac
	done
	if [ -e "$dest$config" ]; then
		echo "kept $config"
	else
		build/zwrmd --generate-config >"$dest$config"
	fi
	[ -z "$dest" ] || return 0
	apply_sysctls
	make_group
	reload
	echo "installed; systemctl enable --now zwrmd starts it"
}

# refuse_vms ends this script while there are VMs: without zwrmd nobody would stop them
# and remove their TAPs.
refuse_vms() {
	if build/zwrm -o json ps 2>/dev/null | grep -q '"name"'; then
		echo "install.sh: there are VMs; first, for each app that zwrm apps lists: zwrm destroy APP" >&2
		exit 1
	fi
	for tap in /sys/class/net/zvm*; do
		[ -e "$tap" ] || continue
		[ "$(cat "$tap/ifalias")" != "zwrm spare" ] || continue # of no VM; stop_daemon takes it away
		echo "install.sh: there are TAPs of VMs, and no zwrmd; start it, and for each app that zwrm apps lists: zwrm destroy APP" >&2
		exit 1
	done
}

# stop_daemon ends zwrmd, and takes away the rules and spare TAPs that it left: with on_shutdown =
# "keep", or when it was killed.
stop_daemon() {
	if [ -d /run/systemd/system ]; then systemctl disable --now zwrmd.service 2>/dev/null || true; fi
	if [ -e "$state/state.db" ]; then
		build/zwrmd --config "$config" --clean >/dev/null || echo "install.sh: rules of ours may be left, see above" >&2
	fi
	rm -rf /run/zwrm
}

# forget removes what only purge does. What the configuration has elsewhere may be in
# a folder with more than ours, so it is only named.
forget() {
	if [ -e "$dest$config" ]; then
		sed -n 's/^ *\(database\.\|images\.\)\{0,1\}\(path\|dir\) *= *"\(.*\)".*/\3/p' "$dest$config" | grep -v "^$state/" | sed 's/^/left to you: /' || true
	fi
	rm -rf "$dest$state"
	rm -f "$dest$config"
}

uninstall_all() {
	if [ -z "$dest" ]; then
		refuse_vms
		stop_daemon
	fi
	if [ "$action" = purge ]; then
		forget
	elif [ -e "$dest$config" ]; then
		if build/zwrmd --generate-config | cmp -s - "$dest$config"; then rm "$dest$config"; else echo "kept $config, since it was changed"; fi
	fi
	[ ! -e "$dest$state" ] || echo "kept $state: what zwrmd remembers, and the images; make purge removes them"
	files | while read -r _ _ target; do
		rm -f "$dest$target"
	done
	[ -z "$dest" ] || return 0
	take_back
	[ "$action" != purge ] || rmdir /etc/zwrm 2>/dev/null || true
	reload
}

# reload tells the programs whose configuration changed, where they run.
reload() {
	[ -d /run/systemd/system ] || return 0
	systemctl daemon-reload
	udevadm control --reload
	if systemctl -q is-active systemd-networkd; then networkctl reload; fi
	if systemctl -q is-active NetworkManager; then systemctl reload NetworkManager; fi
}

case $action in
install) install_all ;;
uninstall | purge) uninstall_all ;;
*) echo "install.sh: $action is neither install nor uninstall nor purge" >&2 && exit 2 ;;
esac
