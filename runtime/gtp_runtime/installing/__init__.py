"""Updates a deployed directory: the new export is copied beside it, proven on this device, and then takes its place.

    with TARGET = /opt/app/vit:

    /opt/app/vit                             a link to one of the folders below
    /opt/app/.vit.installed/1-0a33f1c2       the last good export
    /opt/app/.vit.installed/2-1f9c04b7       the present one
    /opt/app/.vit.installed/new              only while an export is copied and proven

The switch is one ``rename`` of a link, which every file system with links does in one step, overlayfs among them. A
process that is killed leaves TARGET as it was or as it is to be; the next install removes what else is left. Nothing
but the link says which export counts: the one that it names, and the last good one is that with the next lower number.

An application that opened files of TARGET keeps them: their folder stays until the install after the next one. ``load``
reads once where the link points, so it gets the old export or the new one, never files of both.
"""

from gtp_runtime.installing.updating import Installed, install, rollback

__all__ = ["Installed", "install", "rollback"]
