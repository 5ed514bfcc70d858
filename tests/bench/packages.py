"""Names and versions of the public packages in the corpora, and those that the next version moves.

A version is an upper bound ("the newest not above"), for a mirror need not have every release.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Npm:
    """A `node_modules`: these packages and their dependencies; then some move on."""

    pins: str
    moved: str


@dataclass(frozen=True, slots=True)
class Pip:
    """A `site-packages`, one layer for each pair: what is there first, what it is replaced by."""

    layers: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Size:
    """A corpus. `grown` are file counts of made-up images, for the question how cost grows."""

    npm: Npm
    pip: Pip
    grown: tuple[int, ...] = field(default=())


# What one web application has: a framework, a UI kit, icons, an editor, build tools, tests, a small
# server, cloud SDKs.
_NPM_FULL = """
next@14.0.4 react@18.2.0 react-dom@18.2.0 @mui/material@5.15.3 @mui/icons-material@5.15.3
lucide-react@0.303.0 @fortawesome/fontawesome-free@6.5.1 three@0.160.0 monaco-editor@0.45.0
date-fns@3.1.0 lodash@4.17.21 lodash-es@4.17.21 rxjs@7.8.1 core-js@3.35.0 webpack@5.89.0
webpack-dev-server@4.15.1 typescript@5.3.3 @babel/core@7.23.7 @babel/preset-env@7.23.7 sass@1.69.7
tailwindcss@3.4.0 eslint@8.56.0 prettier@3.1.1 jest@29.7.0 playwright@1.40.1 express@4.18.2
mongoose@8.0.3 prisma@5.7.1 @aws-sdk/client-s3@3.485.0 @aws-sdk/client-ec2@3.485.0
@aws-sdk/client-dynamodb@3.485.0 googleapis@130.0.0
"""
_NPM_FULL_MOVED = """
@mui/material@5.15.15 @mui/icons-material@5.15.15 lucide-react@0.365.0 three@0.163.0
monaco-editor@0.47.0 date-fns@3.6.0 core-js@3.37.0 typescript@5.4.5 prettier@3.2.5
playwright@1.43.0 express@4.19.2 mongoose@8.3.1 prisma@5.12.1 @aws-sdk/client-s3@3.554.0
@aws-sdk/client-ec2@3.554.0 @aws-sdk/client-dynamodb@3.554.0 googleapis@134.0.0
"""

_BASE = """
sympy==1.12 django==5.0 plotly==5.18.0 jedi==0.19.1 babel==2.14.0 nltk==3.8.1 networkx==3.2.1
transformers==4.36.2 setuptools==69.0.3 pyarrow==14.0.2 opencv-python-headless==4.8.1.78
numba==0.58.1 llvmlite==0.41.1
"""
_SCIENCE = """
numpy==1.26.2 scipy==1.11.4 pandas==2.1.4 scikit-learn==1.3.2 matplotlib==3.8.2 statsmodels==0.14.1
scikit-image==0.22.0 pillow==10.1.0
"""
_SCIENCE_MOVED = """
numpy==1.26.4 scipy==1.12.0 pandas==2.2.0 scikit-learn==1.4.0 matplotlib==3.8.3 statsmodels==0.14.1
scikit-image==0.22.0 pillow==10.2.0
"""
_CLOUD = """
botocore==1.34.11 boto3==1.34.11 google-api-python-client==2.111.0 azure-mgmt-network==25.2.0
azure-mgmt-compute==30.4.0 kubernetes==28.1.0 sqlalchemy==2.0.25 faker==22.0.0
"""
_CLOUD_MOVED = """
botocore==1.34.40 boto3==1.34.40 google-api-python-client==2.118.0 azure-mgmt-network==25.2.0
azure-mgmt-compute==30.5.0 kubernetes==29.0.0 sqlalchemy==2.0.27 faker==23.1.0
"""

SIZES = {
    "full": Size(
        Npm(_NPM_FULL, _NPM_FULL_MOVED),
        Pip(((_BASE, _BASE), (_SCIENCE, _SCIENCE_MOVED), (_CLOUD, _CLOUD_MOVED))),
        (10_000, 30_000, 100_000, 300_000),
    ),
    "small": Size(
        Npm(
            "typescript@5.3.3 lodash@4.17.21 rxjs@7.8.1 express@4.18.2",
            "typescript@5.4.5 express@4.19.2",
        ),
        Pip(
            (
                ("babel==2.14.0", "babel==2.14.0"),
                ("django==5.0", "django==5.0.4"),
                ("sqlalchemy==2.0.25",) * 2,
            )
        ),
        (1_000, 2_000, 4_000),
    ),
}
